// A TCP proxy that behaves like a slow, distant link: one-way delay, rate, jitter and stalls.
//
// usage: link_emulator --to HOST:PORT [--delay-ms D] [--up-mbit U] [--down-mbit U] [--jitter-ms J]
//                      [--seed S] [--script FILE]
//
// Prints the port it listens on (127.0.0.1) and forwards until it is killed. What a client sends is
// "up". A byte leaves when the bytes before it have left at the rate, and arrives one delay later,
// plus a random part of up to `jitter` (bytes never overtake each other, as in TCP). A rate of 0 is
// no limit. Each direction holds at most a quarter of a second's worth of unsent bytes (64 KiB at
// least) and then stops reading, as a sender's window would.
//
// A script changes the link over time, a line each, "#" for comments:
//   <seconds since the first connection> delay-ms=40 up-mbit=20 down-mbit=20 jitter-ms=2
//   stall-ms=500
// A stall delivers nothing in either direction for so long.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <list>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;
using Seconds = std::chrono::duration<double>;

// Small pieces, so that a rate is even: 1,500 bytes is what a packet holds.
constexpr size_t kPiece = 1500;

Time later(Time time, double seconds) {
  return time + std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
}

struct Link {
  double delay_s = 0;
  double jitter_s = 0;
  double up_bps = 0;
  double down_bps = 0;
};

struct Change {
  double at_s = 0;
  std::vector<std::pair<std::string, double>> settings;
};

/// The link now, and how it will change.
class Conditions {
 public:
  Link link;
  std::vector<Change> script;  // in order of time
  std::mt19937_64 random;
  Time stalled_until;

  void set(const std::string& name, double value) {
    if (!(value >= 0)) throw std::runtime_error(name + " must be at least 0");
    if (name == "delay-ms") {
      link.delay_s = value / 1e3;
    } else if (name == "jitter-ms") {
      link.jitter_s = value / 1e3;
    } else if (name == "up-mbit") {
      link.up_bps = value * 1e6;
    } else if (name == "down-mbit") {
      link.down_bps = value * 1e6;
    } else if (name == "stall-ms") {
      stalled_until = later(Clock::now(), value / 1e3);
    } else {
      throw std::runtime_error("unknown setting '" + name + "'");
    }
  }

  /// Applies what is due. \returns when the next change is.
  Time follow_script(Time start, Time now) {
    while (next_ < script.size() && later(start, script[next_].at_s) <= now) {
      for (const auto& [name, value] : script[next_].settings) set(name, value);
      ++next_;
    }
    return next_ < script.size() ? later(start, script[next_].at_s) : Time::max();
  }

  double jitter() { return std::uniform_real_distribution<double>(0, link.jitter_s)(random); }

 private:
  size_t next_ = 0;
};

/// One direction of one connection.
class Direction {
 public:
  Direction(Conditions& conditions, double Link::*rate) : conditions_(conditions), rate_(rate) {}

  [[nodiscard]] bool wants_bytes() const {
    const double room = std::max(65536.0, conditions_.link.*rate_ / 8 / 4);
    return !ended_ && static_cast<double>(unsent_) < room;
  }

  /// Takes in what `from` has.
  void read(int from, Time now) {
    std::array<char, kPiece> buffer;
    while (wants_bytes()) {
      const ssize_t count = recv(from, buffer.data(), buffer.size(), 0);
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (count <= 0) {
        ended_ = true;
        return;
      }
      const auto size = static_cast<size_t>(count);
      const double rate = conditions_.link.*rate_;
      left_ = std::max(left_, now);
      if (rate > 0) left_ = later(left_, 8 * static_cast<double>(size) / rate);
      arrives_ = std::max(arrives_, later(left_, conditions_.link.delay_s + conditions_.jitter()));
      pieces_.push_back({left_, arrives_, {buffer.data(), size}});
      unsent_ += size;
    }
  }

  /// Gives `to` what has arrived. \returns whether the connection may go on.
  bool write(int to, Time now) {
    for (Piece& piece : pieces_) {
      if (piece.left > now) break;
      unsent_ -= piece.counted ? 0 : piece.bytes.size();
      piece.counted = true;
    }
    while (!pieces_.empty() && pieces_.front().arrives <= now && now >= conditions_.stalled_until) {
      Piece& piece = pieces_.front();
      const ssize_t count = send(to, piece.bytes.data(), piece.bytes.size(), MSG_NOSIGNAL);
      if (count < 0) {
        blocked_ = errno == EAGAIN;
        return errno == EAGAIN || errno == EINTR;
      }
      blocked_ = false;
      piece.bytes.erase(0, static_cast<size_t>(count));
      if (!piece.bytes.empty()) return true;
      pieces_.pop_front();
    }
    if (ended_ && pieces_.empty() && !closed_) {
      shutdown(to, SHUT_WR);
      closed_ = true;
    }
    return true;
  }

  [[nodiscard]] bool is_blocked() const { return blocked_; }
  [[nodiscard]] bool is_closed() const { return closed_; }
  /// When there is something to do next.
  [[nodiscard]] Time due() const {
    if (pieces_.empty()) return Time::max();
    Time next = std::max(pieces_.front().arrives, conditions_.stalled_until);
    for (const Piece& piece : pieces_) {
      if (piece.counted) continue;
      next = std::min(next, piece.left);
      break;
    }
    return next;
  }

 private:
  struct Piece {
    Time left;  // when its last bit is on the way
    Time arrives;
    std::string bytes;
    bool counted = false;  // it has left
  };

  Conditions& conditions_;
  double Link::*rate_;
  std::deque<Piece> pieces_;
  size_t unsent_ = 0;
  Time left_;
  Time arrives_;
  bool ended_ = false;
  bool closed_ = false;
  bool blocked_ = false;
};

struct Connection {
  int client;
  int server;
  Direction up;
  Direction down;

  Connection(int client_socket, int server_socket, Conditions& conditions)
      : client(client_socket),
        server(server_socket),
        up(conditions, &Link::up_bps),
        down(conditions, &Link::down_bps) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() {
    close(client);
    close(server);
  }

  bool move(Time now) {
    up.read(client, now);
    down.read(server, now);
    return up.write(server, now) && down.write(client, now) &&
           !(up.is_closed() && down.is_closed());
  }
};

int checked(int result, const char* what) {
  if (result < 0) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
  return result;
}

void prepare(int socket) {
  const int on = 1;
  checked(fcntl(socket, F_SETFL, O_NONBLOCK), "fcntl");
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int connect_to(const sockaddr_in& address) {
  const int result = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  if (connect(result, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    close(result);
    return -1;
  }
  prepare(result);
  return result;
}

sockaddr_in parse_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (colon == std::string::npos ||
      getaddrinfo(text.substr(0, colon).c_str(), text.substr(colon + 1).c_str(), &hints, &found) !=
          0)
    throw std::runtime_error("'" + text + "' is no HOST:PORT");
  sockaddr_in address{};
  std::memcpy(&address, found->ai_addr, sizeof address);
  freeaddrinfo(found);
  return address;
}

int listen_on_loopback() {
  const int listener = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  checked(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), "bind");
  checked(listen(listener, 64), "listen");
  checked(fcntl(listener, F_SETFL, O_NONBLOCK), "fcntl");
  socklen_t size = sizeof address;
  checked(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return listener;
}

[[noreturn]] void forward(int listener, const sockaddr_in& server, Conditions& conditions) {
  std::list<std::unique_ptr<Connection>> connections;
  Time start = Time::max();
  while (true) {
    Time wake = start == Time::max() ? Time::max() : conditions.follow_script(start, Clock::now());
    std::vector<pollfd> polled = {{listener, POLLIN, 0}};
    for (const auto& c : connections) {
      wake = std::min({wake, c->up.due(), c->down.due()});
      // A socket that nothing is wanted of stays out, or its hanging up would wake us for ever.
      const auto watch = [&](int socket, const Direction& in, const Direction& out) {
        const int events = (in.wants_bytes() ? POLLIN : 0) | (out.is_blocked() ? POLLOUT : 0);
        polled.push_back({events == 0 ? -1 : socket, static_cast<short>(events), 0});
      };
      watch(c->client, c->up, c->down);
      watch(c->server, c->down, c->up);
    }
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::max(Clock::duration(0), wake - Clock::now()));
    const timespec timeout{static_cast<time_t>(left.count() / 1'000'000'000),
                           static_cast<long>(left.count() % 1'000'000'000)};
    ppoll(polled.data(), polled.size(), wake == Time::max() ? nullptr : &timeout, nullptr);
    const int accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (accepted >= 0) {
      if (start == Time::max()) start = Clock::now();
      const int onward = connect_to(server);
      if (onward < 0) {
        close(accepted);
      } else {
        prepare(accepted);
        connections.push_back(std::make_unique<Connection>(accepted, onward, conditions));
      }
    }
    const Time now = Clock::now();
    connections.remove_if([&](const auto& connection) { return !connection->move(now); });
  }
}

double number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw std::runtime_error("'" + text + "' is no number");
  return value;
}

std::vector<Change> read_script(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<Change> script;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string word;
    if (!(words >> word)) continue;
    Change change{.at_s = number(word)};
    while (words >> word) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) throw std::runtime_error("'" + word + "' is no NAME=VALUE");
      change.settings.emplace_back(word.substr(0, equals), number(word.substr(equals + 1)));
    }
    if (!script.empty() && change.at_s < script.back().at_s)
      throw std::runtime_error("the lines of " + path + " are not in order of time");
    script.push_back(std::move(change));
  }
  return script;
}

void run(int argc, char** argv) {
  Conditions conditions;
  std::string to;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (!name.starts_with("--") || i + 1 == argc)
      throw std::runtime_error("usage: see the head of link_emulator.cpp");
    const std::string value = argv[i + 1];
    if (name == "--to") {
      to = value;
    } else if (name == "--script") {
      conditions.script = read_script(value);
    } else if (name == "--seed") {
      conditions.random.seed(static_cast<uint64_t>(number(value)));
    } else {
      conditions.set(name.substr(2), number(value));
    }
  }
  if (to.empty()) throw std::runtime_error("--to HOST:PORT is required");
  const sockaddr_in server = parse_address(to);
  forward(listen_on_loopback(), server, conditions);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "link_emulator: error: %s\n", error.what());
    return 1;
  }
}
