// Errors as values: what the outside world can cause is returned, never thrown.
//
// Functions throw std::invalid_argument or std::logic_error only when the caller broke a documented
// precondition. No exception type of a dependency crosses a public header.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace isthmus {

/// What went wrong, grouped by cause. The numeric values are stable: they travel on the wire.
enum class ErrorCode : uint16_t {
  // Arguments: the request itself is wrong; repeating it cannot succeed.
  kInvalidArgument = 100,  ///< a value is outside its documented range
  kUnsupported = 101,      ///< valid, but this build or this peer cannot do it
  kNotFinite = 102,        ///< NaN or infinity where a finite number is needed

  // State: right request, wrong moment.
  kOutOfOrder = 200,  ///< a step's sequence or position is not the next one
  kUnknownSession =
      201,           ///< the server does not know the session (expired, restarted, or not ours)
  kCancelled = 202,  ///< the caller asked to stop

  // Resources.
  kOutOfMemory = 300,  ///< an allocation or reservation failed
  kContextFull = 301,  ///< the session's negotiated token capacity is used up
  kServerFull = 302,   ///< the server has no free session; try again later
  kBusy = 303,         ///< the server's queues are full; try again later
  kDraining = 304,     ///< the server is about to stop; go on with another one

  // Data that came from outside.
  kNotFound = 400,   ///< no such file, tensor or metadata key
  kIo = 401,         ///< the operating system refused a read or a write
  kTruncated = 402,  ///< the data end before they should
  kCorrupt = 403,    ///< the data contradict themselves or their format
  kTooLarge = 404,   ///< a size is above a stated or negotiated limit

  // Network.
  kTimeout = 500,          ///< no answer within the deadline
  kServerLost = 501,       ///< nothing listens there, or the connection broke and did not come back
  kKeyRefused = 502,       ///< the server does not know our key, or its key is not the expected one
  kVersionMismatch = 503,  ///< the peer speaks another protocol version
  kModelMismatch = 504,    ///< the peer runs another model

  // Devices.
  kNoDevice = 600,      ///< the requested accelerator or its libraries are missing
  kDeviceFailed = 601,  ///< the accelerator reported a failure

  // Privacy.
  kBudgetSpent = 700,  ///< the release would take the ledger past its budget; nothing was sent

  kInternal = 900,  ///< a defect in Isthmus; please report it
};

/// The enumerator's name without the k, for example "InvalidArgument"; "Unknown" for other values.
[[nodiscard]] std::string_view to_string(ErrorCode code);

/// An error as a value. `message` is lower case, without a final period, and starts with the
/// module.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

/// Makes the error alternative of any Result: `return fail(ErrorCode::kCorrupt, "gguf: ...")`.
[[nodiscard]] inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

/// Passes on the error of another Result: `return propagate(std::move(result))`.
template <typename T>
[[nodiscard]] tl::unexpected<Error> propagate(tl::expected<T, Error>&& result) {
  return tl::unexpected<Error>(std::move(result).error());
}

}  // namespace isthmus

#define ISTHMUS_CONCAT_INNER(a, b) a##b
#define ISTHMUS_CONCAT(a, b) ISTHMUS_CONCAT_INNER(a, b)

/// Returns from the enclosing function when the Status or Result is an error.
#define ISTHMUS_TRY(expression)                               \
  do {                                                        \
    if (auto isthmus_status = (expression); !isthmus_status)  \
      return ::isthmus::propagate(std::move(isthmus_status)); \
  } while (false)

/// `ISTHMUS_ASSIGN(auto file, open(path));` declares `file`, or returns the error.
#define ISTHMUS_ASSIGN(target, expression) \
  ISTHMUS_ASSIGN_INNER(ISTHMUS_CONCAT(isthmus_result_, __LINE__), target, expression)
#define ISTHMUS_ASSIGN_INNER(result, target, expression)       \
  auto result = (expression);                                  \
  if (!result) return ::isthmus::propagate(std::move(result)); \
  target = std::move(*result)
