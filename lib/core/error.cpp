#include <isthmus/core/error.h>

namespace isthmus {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "InvalidArgument";
    case ErrorCode::kUnsupported:
      return "Unsupported";
    case ErrorCode::kNotFinite:
      return "NotFinite";
    case ErrorCode::kOutOfOrder:
      return "OutOfOrder";
    case ErrorCode::kUnknownSession:
      return "UnknownSession";
    case ErrorCode::kCancelled:
      return "Cancelled";
    case ErrorCode::kOutOfMemory:
      return "OutOfMemory";
    case ErrorCode::kContextFull:
      return "ContextFull";
    case ErrorCode::kServerFull:
      return "ServerFull";
    case ErrorCode::kBusy:
      return "Busy";
    case ErrorCode::kDraining:
      return "Draining";
    case ErrorCode::kNotFound:
      return "NotFound";
    case ErrorCode::kIo:
      return "Io";
    case ErrorCode::kTruncated:
      return "Truncated";
    case ErrorCode::kCorrupt:
      return "Corrupt";
    case ErrorCode::kTooLarge:
      return "TooLarge";
    case ErrorCode::kTimeout:
      return "Timeout";
    case ErrorCode::kServerLost:
      return "ServerLost";
    case ErrorCode::kKeyRefused:
      return "KeyRefused";
    case ErrorCode::kVersionMismatch:
      return "VersionMismatch";
    case ErrorCode::kModelMismatch:
      return "ModelMismatch";
    case ErrorCode::kNoDevice:
      return "NoDevice";
    case ErrorCode::kDeviceFailed:
      return "DeviceFailed";
    case ErrorCode::kBudgetSpent:
      return "BudgetSpent";
    case ErrorCode::kInternal:
      return "Internal";
  }
  return "Unknown";
}

}  // namespace isthmus
