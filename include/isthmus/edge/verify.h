// Checking a server: a random sample of its answers is worked out again elsewhere.
//
// A fingerprint says what a server claims to run; this finds out what it does run. Honest engines
// of other precision round differently, so what rounding explains is not held against a server.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <string>

namespace isthmus::edge {

/// Checks happen at the end of each reply, whose steps are replayed up to the last one that is
/// compared: about the work of the reply once more.
struct VerifyOptions {
  double share = 0;  ///< of the answers, drawn once they are there; in [0, 1]; 0: none
  /// Connection string of another server, which gets to see the same rows (and is charged for
  /// them); none of the session's. A repetition penalty goes by what that server has chosen itself,
  /// so one other token may bring more with it. Empty: this device, which must have the whole
  /// model.
  std::string server;
  // What rounding may do: lib/edge/README.md has what it does.
  double row_tolerance = 0.2;  ///< of answers that are rows: how much further one is off than
                               ///< coding it explains, relative to its size
  double token_tolerance =
      0.1;  ///< of answers that are tokens: the share that is another; in (0, 1)

  /// \returns kInvalidArgument naming the field.
  [[nodiscard]] Status validate() const;
};

/// What was found since the session was opened.
struct VerifyReport {
  uint64_t compared = 0;       ///< answers
  uint64_t other_tokens = 0;   ///< of those that were tokens, those that came out differently
  uint64_t wrong_rows = 0;     ///< of those that were rows, those beyond the tolerance
  double worst_row_error = 0;  ///< relative
  double token_tolerance = 0;  ///< as asked for
  std::string problem;         ///< why checking ended before the session did; empty when it did not

  /// Whether there is more disagreement than the tolerances explain: any wrong row, or so many
  /// other tokens that an honest server would have them in 1 of 10,000 sessions.
  [[nodiscard]] bool is_suspicious() const;
};

}  // namespace isthmus::edge
