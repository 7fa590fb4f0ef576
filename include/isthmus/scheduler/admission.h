// Who may open a session and whose steps may wait: memory, queue and quotas, counted before
// anything is allocated.
//
// Pure: ids, counts and times in, decisions out.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

namespace isthmus::scheduler {

/// What all clients together, and one client, may hold.
struct Quotas {
  int32_t max_sessions = 64;                   ///< open at the same time, at least 1
  uint64_t max_kv_bytes = uint64_t{4} << 30U;  ///< keys and values that sessions may grow to
  int64_t max_waiting_rows = 4096;         ///< boundary rows of steps not yet answered, at least 1
  int32_t max_client_sessions = 64;        ///< of one key, at least 1
  int64_t max_client_waiting_rows = 2048;  ///< of one key, at least 1
  uint64_t max_client_bytes_per_second = 0;  ///< payload of one key's steps; 0: no limit

  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
};

/// Keeps count. What is admitted is released by the same amount, once. Not thread-safe.
class Admission {
 public:
  /// \throws std::invalid_argument when `quotas` are not valid.
  explicit Admission(Quotas quotas);

  /// Room for a session that may grow to `kv_bytes`. \returns kServerFull naming the limit.
  [[nodiscard]] Status admit_session(uint64_t client, uint64_t kv_bytes);
  void release_session(uint64_t client, uint64_t kv_bytes);

  /// A place for a step of `rows` rows and `bytes` bytes of payload: nothing when it is admitted,
  /// otherwise how long to wait before asking again. A step that no quota could ever admit is
  /// admitted when its client has nothing else waiting.
  [[nodiscard]] std::optional<std::chrono::milliseconds> admit_step(uint64_t client, int32_t rows,
                                                                    size_t bytes,
                                                                    Clock::TimePoint now);
  /// `rows` of an admitted step were answered, or will never be.
  void release_step(uint64_t client, int32_t rows);

  /// Drops what is known of a client that holds nothing, its allowance of bytes included.
  void forget(uint64_t client);

  /// `rows` rows took `time` to compute: what waiting times are estimated from.
  void note_speed(int64_t rows, std::chrono::nanoseconds time);

  [[nodiscard]] int32_t sessions() const { return sessions_; }
  [[nodiscard]] uint64_t kv_bytes() const { return kv_bytes_; }
  [[nodiscard]] int64_t waiting_rows() const { return waiting_rows_; }

 private:
  struct Client {
    int32_t sessions = 0;
    int64_t waiting_rows = 0;
    double bytes_left = 0;  // of this second's allowance; negative after a large step
    std::optional<Clock::TimePoint> refilled;
  };

  /// How long until the client's allowance of bytes is above 0 again; nothing when it is.
  std::optional<std::chrono::milliseconds> bytes_overdrawn(Client& client,
                                                           Clock::TimePoint now) const;
  [[nodiscard]] std::chrono::milliseconds time_for(int64_t rows) const;

  Quotas quotas_;
  std::map<uint64_t, Client> clients_;
  int32_t sessions_ = 0;
  uint64_t kv_bytes_ = 0;
  int64_t waiting_rows_ = 0;
  double rows_per_second_ = 1000;  // until it is measured
};

}  // namespace isthmus::scheduler
