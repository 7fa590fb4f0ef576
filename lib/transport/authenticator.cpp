#include "authenticator.h"

#include <isthmus/transport/keys.h>

#include <array>
#include <cerrno>
#include <vector>

#include "signals_blocked.h"

namespace isthmus::transport {
namespace {

constexpr const char* kEndpoint = "inproc://zeromq.zap.01";
constexpr const char* kVersion = "1.0";
constexpr size_t kKeyBytes = 32;

/// Frames of a request (RFC 27): version, request id, domain, address, routing id, mechanism,
/// credentials. With CURVE the one credential is the client's public key.
enum RequestFrame : size_t { kRequestVersion, kRequestId, kMechanism = 5, kCredentials, kCount };

std::string z85_key(const std::string& bytes) {
  std::array<char, 41> text{};
  zmq_z85_encode(text.data(), reinterpret_cast<const uint8_t*>(bytes.data()), kKeyBytes);
  return text.data();
}

}  // namespace

Authenticator::Authenticator(zmq::context_t& context,
                             std::optional<std::filesystem::path> allow_list)
    : context_(context),
      requests_(context, zmq::socket_type::rep),
      allow_list_(std::move(allow_list)) {
  requests_.set(zmq::sockopt::linger, 0);
  requests_.bind(kEndpoint);
  const SignalsBlocked blocked;
  thread_ = std::thread([this] { serve(); });
}

Authenticator::~Authenticator() {
  context_.shutdown();
  thread_.join();
}

void Authenticator::serve() noexcept {
  while (true) {
    try {
      answer_one();
    } catch (const zmq::error_t& error) {
      if (error.num() == ETERM) break;
      refuse_unanswered();
    } catch (const std::exception&) {
      refuse_unanswered();
    }
  }
  requests_.close();
}

void Authenticator::answer_one() {
  std::vector<std::string> request;
  zmq::message_t frame;
  do {
    static_cast<void>(requests_.recv(frame));
    request.push_back(frame.to_string());
  } while (frame.more());
  if (request.size() < kCount) request.resize(kCount);

  const bool is_curve = request[kRequestVersion] == kVersion && request[kMechanism] == "CURVE" &&
                        request[kCredentials].size() == kKeyBytes;
  const std::string key = is_curve ? z85_key(request[kCredentials]) : "";
  const bool admitted = is_curve && admits(key);
  const std::array<std::string, 6> reply = {kVersion,
                                            request[kRequestId],
                                            admitted ? "200" : "400",
                                            admitted ? "OK" : "not enrolled",
                                            admitted ? key : "",
                                            /*metadata=*/""};
  for (size_t i = 0; i < reply.size(); ++i) {
    requests_.send(zmq::buffer(reply[i]),
                   i + 1 < reply.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
}

/// For when memory ran out halfway: the next receive fails until this request has an answer.
void Authenticator::refuse_unanswered() noexcept {
  zmq_send(requests_.handle(), "", 0,
           ZMQ_DONTWAIT);  // an answer libzmq does not understand admits nobody
}

bool Authenticator::admits(const std::string& public_key) const {
  if (!allow_list_) return true;
  const auto keys = load_allow_list(*allow_list_);
  return keys && keys->contains(public_key);
}

}  // namespace isthmus::transport
