// The device's side: an app loads a model here, connects to a server, and streams text.
//
//   text -> tokens -> embed -> layers [0, cut) -> encode == network ==> layers [cut, tail) on the
//   server text <- sample <- head  <- layers [tail, L) <- decode <== network ==  (or the server
//   samples and returns a token id)
//
// Nothing in this library needs libtorch. What crosses the network is encrypted, but the server can
// read it: boundary activations without noise are as good as the text. With a mechanism in the
// codec, every row that goes up is noised here and charged to a ledger before it is sent.
#pragma once

#include <isthmus/artefact/artefact.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/error.h>
#include <isthmus/edge/verify.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/engine.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/model/config.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/privacy/ledger.h>
#include <isthmus/privacy/mechanism.h>
#include <isthmus/text/chat.h>
#include <isthmus/text/tokenizer.h>
#include <isthmus/transport/keys.h>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::edge {

class Session;

/// What a device holds and how it computes.
struct DeviceOptions {
  std::filesystem::path model;  ///< GGUF file (a slice will do) or Hugging Face folder
  /// Layers [0, cut) run here and the rest on a server; in [0, L]. Nothing: the whole model runs
  /// here.
  std::optional<int32_t> cut;
  /// Layers [tail, L), the final norm and the head run here too, so that the server never sees a
  /// token; in [cut, L], L for norm and head alone. Nothing: the server has the head and chooses
  /// tokens. Only with a cut.
  std::optional<int32_t> tail;
  size_t threads = 0;               ///< at most ThreadPool::kMaxThreads; 0: one per hardware thread
  engine::CpuEngineOptions engine;  ///< precision of weights, activations and cache
  /// How turns are written. Nothing: as the model's own template does.
  std::optional<text::ChatFormat> chat_format;
  engine::Progress progress;  ///< told how much is loaded; may be empty
};

/// What a session's codec is unless told otherwise: about 3.3 bits a coordinate without any data.
/// It costs SmolLM2 0.5 % to 0.7 % of perplexity in the first half of its layers and up to 1.2 %
/// behind (lib/codec/README.md).
[[nodiscard]] codec::CodecSpec default_codec();

/// How a session is held with a server. Has no effect (but for max_tokens) when the whole model
/// runs on the device; it must be valid all the same.
struct SessionOptions {
  std::string server;  ///< connection string, isthmus://host:port?key=...
  /// Servers to go on with when that one is lost: a new session there is brought to the same state
  /// with the same bytes. With a mechanism each of them is told what the first is told, so each of
  /// them is charged.
  std::vector<std::string> fallback_servers;
  /// This device's keys; nothing: those in the standard place, made on first use.
  std::optional<transport::KeyPair> keys;
  bool allow_plaintext = false;  ///< accept a connection string without a key
  int32_t max_tokens = 2048;     ///< context asked for; the server may grant less
  /// How boundary rows are written on their way to the server.
  codec::CodecSpec codec = default_codec();
  /// How they come back for a tail; no mechanism, no projection. Nothing: as they went, or by
  /// default if that has a mechanism, or a projection or calibration, which is of the rows at the
  /// cut.
  std::optional<codec::CodecSpec> codec_down;
  /// At cut 0 behind a mechanism, how rows of generated tokens go up: the server knows these
  /// tokens, so they are neither noised nor charged (privacy::charges_generated_rows). No
  /// mechanism.
  codec::CodecSpec codec_clean = default_codec();
  /// Where releases are charged; needed when `codec` has a mechanism, else ignored.
  std::shared_ptr<privacy::Ledger> ledger;
  /// Those that the codecs name; the server must have them too.
  std::vector<std::shared_ptr<const codec::Calibration>> calibrations;
  /// The same for projections; the device needs its half alone. One with a soft prompt leaves no
  /// layers for a tail: their caches would lack it.
  artefact::Artefacts artefacts;
  std::chrono::milliseconds connect_timeout{5'000};  ///< for one server's handshake
  /// For one step, waiting and repetitions included. Opening a session may take as long, once
  /// connected; when there are several servers, each has its share of it to do so.
  std::chrono::milliseconds request_timeout{60'000};
  std::chrono::milliseconds reconnect_timeout{
      3'000};  ///< how long a broken connection may take to come back
  /// How long bringing another session to the same state may take when the server is lost, does
  /// not answer within request_timeout, or has forgotten this one; 0: not at all. When there are
  /// several servers, one that leaves a request unanswered for its share of this is left again.
  std::chrono::milliseconds resume_timeout{30'000};
  /// What may be kept for that: the encoded rows of the session. A session that has sent more
  /// cannot be resumed.
  size_t history_bytes = 64U << 20U;
  VerifyOptions verify;  ///< whether the server's answers are checked, and against whom

  /// \returns kInvalidArgument naming the field: max_tokens below 1, a timeout outside [1 ms, 1
  /// day] (resume_timeout may be 0), a field of `verify`; kUnsupported for a mechanism where there
  /// may be none.
  [[nodiscard]] Status validate() const;
};

struct GenerateOptions {
  int32_t max_tokens = 256;  ///< at least 1
  engine::SamplingOptions sampling;
  std::vector<std::string>
      stop;  ///< a reply ends before the first of these texts; none may be empty

  [[nodiscard]] Status validate() const;
};

enum class FinishReason : uint8_t {
  kEnd,          ///< the model ended its reply
  kLength,       ///< max_tokens were generated
  kContextFull,  ///< the session has no room for another token
  kStop,         ///< a stop text appeared
  kCancelled,    ///< the callback asked to stop
};
[[nodiscard]] std::string_view to_string(FinishReason reason);

/// Where the time of a reply went, in seconds.
struct TimeSplit {
  double device = 0;  ///< engine and sampler on the device
  double codec = 0;   ///< encoding and decoding, both sides
  double wire = 0;    ///< round trips, less what the server says it spent
  double server = 0;  ///< engine, sampler and queue on the server
};

/// One finished reply and what it cost.
struct Reply {
  std::string text;
  std::vector<int32_t> prompt_token_ids;  ///< the tokens this turn added before the reply
  std::vector<int32_t> token_ids;         ///< generated, an end token included
  FinishReason finish_reason = FinishReason::kEnd;
  double time_to_first_token_s = 0;
  double tokens_per_s =
      0;  ///< generated tokens after the first, per second; 0 when there is only one
  double wire_s_per_token = 0;  ///< of those, mean time on the wire
  uint64_t bytes_up = 0;        ///< all message frames, encryption and TCP not counted
  uint64_t bytes_down = 0;
  uint64_t boundary_bytes_up = 0;  ///< of those up, the encoded rows
  uint64_t steps = 0;              ///< requests to the server
  uint64_t released_rows = 0;      ///< rows noised by a mechanism, charged before
  uint64_t resumes = 0;            ///< how often another session had to take over
  TimeSplit time_s;
};

/// What a session behind a mechanism has told its servers.
struct PrivacyReport {
  /// Of one row, and of all rows of this conversation.
  privacy::PrivacyStatement statement;
  privacy::PrivacySpent spent;  ///< from the ledger; of the server that was told most
};

/// Gets text as it comes, in whole UTF-8 characters; returns false to cancel. Called from the
/// generating thread, with an empty text for a token that completes no character, and between the
/// chunks of a long prompt, where cancelling takes the turn back. Must not generate in the same
/// session.
using OnText = std::function<bool(std::string_view text)>;

/// The weights and the vocabulary that a device holds. Not thread-safe: a device and its sessions
/// belong to one thread at a time.
class Device {
 public:
  /// \returns the errors of ModelFile::open and of the engine; kInvalidArgument for a cut or tail
  /// outside the model.
  [[nodiscard]] static Result<Device> load(const DeviceOptions& options);

  Device(Device&&) noexcept;
  Device& operator=(Device&&) noexcept;
  ~Device();

  /// Starts a conversation; connects to the server when the model is split. The device must outlive
  /// the session. \returns kTimeout, kServerLost (also for a name that cannot be looked up, which
  /// takes as long as the system lets it), kKeyRefused, kServerFull, kBusy, kDraining,
  /// kModelMismatch, kVersionMismatch, kCorrupt (an answer that cannot be one), kUnsupported and
  /// kNotFound (codecs, calibrations and artefacts, here or on the server), kOutOfMemory,
  /// kInvalidArgument (a mechanism without a ledger among others), and what `fingerprint` and the
  /// ledger return. With several servers the error is the last one's.
  [[nodiscard]] Result<Session> open_session(const SessionOptions& options);

  /// Of the whole model, which a server must run too. Computed when it is first asked for, or when
  /// the first session with a server is opened. \returns the errors of model::fingerprint.
  [[nodiscard]] Result<model::Fingerprint> fingerprint();
  [[nodiscard]] const model::ModelConfig& config() const;
  [[nodiscard]] const text::Tokenizer& tokenizer() const;
  [[nodiscard]] text::ChatFormat chat_format() const;
  /// Precision and memory of what runs here.
  [[nodiscard]] engine::EngineInfo engine_info() const;

 private:
  friend class Session;
  struct Impl;
  explicit Device(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// One conversation: its KV caches here and on the server, and its place in the chat format. Turns
/// continue on the caches.
class Session {
 public:
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  /// Closes the session on the server; waits for its answer only briefly.
  ~Session();

  /// Adds `messages` and generates the assistant's reply. After an error or a cancellation the
  /// session stays usable as long as its server lives: an error takes the whole turn back. \returns
  /// kInvalidArgument, kContextFull when the prompt does not fit, kTimeout, kServerLost,
  /// kUnknownSession, kDraining, kKeyRefused (of these five: what the server was lost for, when no
  /// other session could take over), kBusy, kCorrupt (an answer that cannot be one), kOutOfOrder
  /// (only from a server with a defect), kBudgetSpent (nothing of what it would have been spent on
  /// was sent), and what the engines return.
  [[nodiscard]] Result<Reply> generate(std::span<const text::ChatMessage> messages,
                                       const GenerateOptions& options, const OnText& on_text = {});

  /// `generate` with one user message.
  [[nodiscard]] Result<Reply> say(std::string_view user_text, const GenerateOptions& options = {},
                                  const OnText& on_text = {});

  /// What the last `generate` had made when it failed, and what that cost; empty when it did not
  /// fail. Its finish_reason means nothing.
  [[nodiscard]] const Reply& unfinished() const;

  /// Nothing when the codec has no mechanism. \returns the ledger's errors.
  [[nodiscard]] Result<std::optional<PrivacyReport>> privacy() const;

  /// What checking the server's answers has found so far (SessionOptions::verify).
  [[nodiscard]] VerifyReport verification() const;

  /// Tokens in the conversation so far, and how many fit.
  [[nodiscard]] int32_t length() const;
  [[nodiscard]] int32_t capacity() const;
  /// Where the server computes, for people; empty when the whole model runs here.
  [[nodiscard]] std::string server_description() const;

 private:
  friend class Device;
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::edge
