// One message of every type, every field set, with the bytes that protocol version 1 gives it.
//
// The bytes were made by another implementation:
//   protoc --encode=isthmus.v1.Envelope isthmus/v1/wire.proto <<< 'request_id: 11 ping {}' | xxd -p
#pragma once

#include <isthmus/wire/messages.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::wire {

inline constexpr uint64_t kSession = 0x1122334455667788;

/// The bytes 1 to 32.
inline std::array<std::byte, 32> counting_fingerprint() {
  std::array<std::byte, 32> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i + 1);
  return bytes;
}

struct Sample {
  const char* name;
  Envelope envelope;
  std::string_view hex;
};

inline std::vector<Sample> samples() {
  return {
      {"open",
       {7, Open{.model = {"llama", 30, 576, 49152, counting_fingerprint()},
                .cut = 4,
                .tail = 30,
                .codec_up = "f16",
                .codec_down = "f32",
                .codec_clean = "bf16",
                .reply_mode = ReplyMode::kHidden,
                .max_tokens = 2048,
                .session = kSession,
                .resumes = true}},
       "0807125a080112320a056c6c616d61101e18c004208080032a200102030405060708090a0b0c0d0e0f101112"
       "131415161718191a1b1c1d1e1f201804201e2a03663136320366333238024080104988776655443322115204"
       "626631365801"},
      {"step",
       {8, Step{.session = kSession,
                .sequence = 3,
                .position = 17,
                .token_count = 2,
                .wants_reply = true,
                .reply_start = 19,
                .sampling = {.temperature = 0.5F,
                             .top_k = 40,
                             .top_p = 0.75F,
                             .min_p = 0.0625F,
                             .repetition_penalty = 1.25F,
                             .seed = 99},
                .clean = true,
                .timeout_ms = 1500}},
       "08081a32098877665544332211100318112002280130133a180d0000003f10501d0000403f250000803d2d00"
       "00a03f3063400148dc0b"},
      {"truncate", {9, Truncate{kSession, 4, 5}}, "0809220d09887766554433221110041805"},
      {"close", {10, Close{kSession}}, "080a2a09098877665544332211"},
      {"ping", {11, Ping{PingReply::kEcho}}, "080b32020801"},
      {"opened",
       {7, Opened{kSession, 1024, 512, "cpu", "exact", 6}},
       "08073a1d09887766554433221110800818800422036370752a0565786163743006"},
      {"step_result",
       {8, StepResult{.session = kSession,
                      .sequence = 3,
                      .length = 19,
                      .token = -1,
                      .compute_us = 1500,
                      .codec_us = 20,
                      .queue_us = 300}},
       "0808421709887766554433221110031813200128dc0b301438ac02"},
      {"truncated", {9, Truncated{kSession, 4, 5}}, "08094a0d09887766554433221110041805"},
      {"closed", {10, Closed{kSession}}, "080a5209098877665544332211"},
      {"pong", {11, Pong{}}, "080b5a00"},
      {"busy", {12, Busy{250}}, "080c620308fa01"},
      {"failure",
       {13, Failure{ErrorCode::kServerFull, "server: 8 of 8 sessions in use"}},
       "080d6a2308ae02121e7365727665723a2038206f6620382073657373696f6e7320696e20757365"},
  };
}

inline std::vector<std::byte> from_hex(std::string_view hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

}  // namespace isthmus::wire
