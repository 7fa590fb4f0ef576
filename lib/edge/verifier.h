// Checks a server's answers: a random sample of them against another server's, or the device's own.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/random.h>
#include <isthmus/edge/device.h>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "witness.h"

namespace isthmus::edge {

/// Which steps are compared is drawn once they have been answered, so that a server cannot know.
/// Not thread-safe.
class Verifier {
 public:
  Verifier(std::unique_ptr<Witness> witness, const VerifyOptions& options);

  /// A step was sent.
  void sent(const wire::Step& step, const std::vector<std::byte>& payload);
  /// The oldest of those that were sent was answered.
  void answered(Answer answer);
  /// Forgets positions [length, ...), none of which was checked, and what was sent and not
  /// answered.
  void truncate(int32_t length);
  /// Repeats what was answered since the last time, up to the last step that is compared.
  void check();

  [[nodiscard]] const VerifyReport& report() const { return report_; }

 private:
  Status repeat(size_t count);
  void compare(const Answer& answer, const Testimony& testimony);
  [[nodiscard]] bool drawn();

  std::unique_ptr<Witness> witness_;
  VerifyOptions options_;
  SystemRandom random_;
  std::deque<Witnessed> sent_;
  // Not repeated yet, with what the server said.
  std::deque<std::pair<Witnessed, Answer>> answered_;
  std::vector<std::pair<uint32_t, int32_t>> chosen_;  // position and id of tokens of this session
  uint32_t end_ = 0;                                  // of what was sent
  VerifyReport report_;
};

}  // namespace isthmus::edge
