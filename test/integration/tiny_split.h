// A tiny random model on disk, and a server for it in this process behind a real socket.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/edge/device.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/server/server.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.h"
#include "support/recording_proxy.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace isthmus::test {

/// A Hugging Face folder with random weights and one token for each byte, so that any text has
/// tokens.
class TinyFolder {
 public:
  explicit TinyFolder(const nlohmann::json& overrides = nlohmann::json::object()) {
    nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                             {"model_type", "llama"},
                             {"vocab_size", 256},
                             {"hidden_size", 48},
                             {"intermediate_size", 80},
                             {"num_hidden_layers", 4},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"max_position_embeddings", 256},
                             {"rms_norm_eps", 1e-5},
                             {"rope_theta", 10000.0},
                             {"torch_dtype", "float32"}};
    config.update(overrides);
    const std::filesystem::path file = folder_.path() / "source.json";
    std::ofstream(file) << config.dump();
    write_tiny_folder(file, folder_.path());
    write_byte_tokenizer();
  }

  [[nodiscard]] std::filesystem::path path() const { return folder_.path(); }

  /// Multiplies the numbers of one tensor, by its Hugging Face name.
  void scale(const std::string& tensor, float factor) const {
    std::fstream file(folder_.path() / "model.safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    uint64_t header_bytes = 0;
    file.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes);
    std::string header(header_bytes, '\0');
    file.read(header.data(), static_cast<std::streamsize>(header.size()));
    const auto offsets = nlohmann::json::parse(header).at(tensor).at("data_offsets");
    std::vector<float> values((offsets[1].get<size_t>() - offsets[0].get<size_t>()) /
                              sizeof(float));
    const auto bytes = static_cast<std::streamsize>(values.size() * sizeof(float));
    const auto place =
        static_cast<std::streamoff>(sizeof header_bytes + header_bytes + offsets[0].get<size_t>());
    file.seekg(place);
    file.read(reinterpret_cast<char*>(values.data()), bytes);
    for (float& value : values) value *= factor;
    file.seekp(place);
    file.write(reinterpret_cast<const char*>(values.data()), bytes);
    if (!file) throw std::runtime_error("cannot change " + tensor);
  }

 private:
  /// GPT-2's printable stand-in for a byte, in UTF-8.
  static std::string stand_in(int byte) {
    const auto printable = [](int b) {
      return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    };
    int code = byte;
    if (!printable(byte)) {
      code = 256;
      for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
    }
    if (code < 128) return {static_cast<char>(code)};
    return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
  }

  void write_byte_tokenizer() const {
    nlohmann::json vocab;
    for (int byte = 0; byte < 256; ++byte) vocab[stand_in(byte)] = byte;
    const nlohmann::json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    const nlohmann::json tokenizer = {
        {"version", "1.0"},
        {"added_tokens", nlohmann::json::array()},
        {"pre_tokenizer", byte_level},
        {"decoder", byte_level},
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
    std::ofstream(folder_.path() / "tokenizer.json") << tokenizer.dump();
  }

  TempFolder folder_;
};

/// Serves a model on a free loopback port until it is destroyed.
class InProcessServer {
 public:
  /// `claimed` is the fingerprint that it says it has; its own when absent.
  explicit InProcessServer(const std::filesystem::path& model, server::ServerOptions limits = {},
                           bool encrypted = true,
                           std::optional<model::Fingerprint> claimed = std::nullopt)
      : limits_(limits), file_(value_of(model::ModelFile::open(model))) {
    model::Part part = whole_model(file_->config());
    part.embedding = false;
    const model::Fingerprint own = value_of(model::fingerprint(*file_, pool_));
    fingerprint_ = claimed.value_or(own);
    engine_ = value_of(engine::load_cpu_engine(
        value_of(artefact::adapted_model(file_, limits.artefacts, own.to_string())), part, pool_));
    host_ =
        std::make_unique<server::SessionHost>(*engine_, fingerprint_, limits_, clock_, observer_);
    transport::ListenerOptions options;
    if (encrypted) options.keys = transport::generate_keys();
    options.insecure = !encrypted;
    options.allow_any_client = true;
    transport::Listener listener = value_of(transport::Listener::bind(options));
    address_ = listener.address();
    thread_ = std::thread([this, bound = std::move(listener)]() mutable {
      served_ = server::serve(bound, *host_, limits_.drain_timeout, clock_, stop_).has_value();
    });
  }
  ~InProcessServer() {
    go_on();
    stop_ = true;
    thread_.join();
  }
  InProcessServer(const InProcessServer&) = delete;
  InProcessServer& operator=(const InProcessServer&) = delete;

  [[nodiscard]] const transport::ServerAddress& address() const { return address_; }
  [[nodiscard]] const model::Fingerprint& fingerprint() const { return fingerprint_; }
  /// Sessions that were opened to go on with a lost one.
  [[nodiscard]] int resumed() const { return observer_.resumed; }
  /// Answers nothing any more once it has made so many more passes over the layers; ZeroMQ's
  /// threads still accept connections and answer heartbeats.
  void hang(int64_t passes = 0) { observer_.last_pass = observer_.passes + passes; }
  void go_on() { observer_.last_pass = INT64_MAX; }

 private:
  struct Watcher final : server::Observer {
    void on_event(const server::Event& event) override { resumed += event.resumes ? 1 : 0; }
    void on_batch(const server::BatchReport&) override {
      ++passes;
      wait();
    }
    void on_load(const server::Load&) override { wait(); }
    void wait() const {
      while (passes >= last_pass) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    std::atomic<int> resumed = 0;
    std::atomic<int64_t> passes = 0;
    std::atomic<int64_t> last_pass = INT64_MAX;
  };

  server::ServerOptions limits_;
  model::Fingerprint fingerprint_;
  SteadyClock clock_;
  Watcher observer_;
  ThreadPool pool_{1};
  std::shared_ptr<const model::ModelFile> file_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<server::SessionHost> host_;
  transport::ServerAddress address_;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> served_ = true;
  std::thread thread_;
};

/// Options for a session with `address`, raw boundary, with deadlines that suit a test.
inline edge::SessionOptions session_options(const transport::ServerAddress& address) {
  edge::SessionOptions options{.server = address.to_string()};
  options.keys = transport::generate_keys();
  options.max_tokens = 200;
  options.codec = {codec::Format::kF32};
  options.allow_plaintext = address.public_key.empty();
  options.resume_timeout = std::chrono::milliseconds(0);  // a lost server is an error
  return options;
}

inline edge::Device load_device(const std::filesystem::path& model, std::optional<int32_t> cut = {},
                                std::optional<int32_t> tail = {}) {
  return value_of(edge::Device::load({.model = model, .cut = cut, .tail = tail, .threads = 1}));
}

inline const std::string kPrompt =
    "The quick brown fox jumps over the lazy dog, and so on and so on until the chunk is full; " +
    std::string("then it goes on for a while so that the prompt needs more than one step.");

/// Two turns with a sampled reply each: all generated ids.
inline std::vector<int32_t> converse(edge::Session& session, float temperature) {
  std::vector<int32_t> ids;
  for (const std::string& prompt : {kPrompt, std::string("again")}) {
    edge::GenerateOptions options{.max_tokens = 10};
    options.sampling = {.temperature = temperature, .repetition_penalty = 1.3F, .seed = 5};
    const edge::Reply reply = value_of(session.say(prompt, options));
    ids.insert(ids.end(), reply.token_ids.begin(), reply.token_ids.end());
  }
  return ids;
}

inline std::vector<int32_t> converse_locally(const std::filesystem::path& model,
                                             float temperature) {
  edge::Device device = load_device(model);
  edge::Session session = value_of(device.open_session({.max_tokens = 200}));
  return converse(session, temperature);
}

inline transport::ServerAddress through(const RecordingProxy& proxy,
                                        transport::ServerAddress address) {
  address.port = proxy.port();
  return address;
}

}  // namespace isthmus::test
