#include "witness.h"

#include <isthmus/engine/sampler.h>

#include <utility>

namespace isthmus::edge {
namespace {

bool tail_has_layers(const wire::Open& open) {
  return open.reply_mode == wire::ReplyMode::kHidden && open.tail < open.model.layer_count;
}

/// Coded once more, as they would have come: so that a codec's own error is not the server's.
Result<Testimony> testify(Matrix exact, const codec::BoundaryCodec& down) {
  Testimony testimony;
  testimony.answer.rows = Matrix(exact.rows(), exact.cols());
  testimony.exact = std::move(exact);
  ISTHMUS_ASSIGN(const auto coded, down.encode(testimony.exact.view()));
  ISTHMUS_TRY(down.decode_into(coded, testimony.answer.rows.view()));
  return testimony;
}

class LocalWitness final : public Witness {
 public:
  LocalWitness(engine::Engine& engine, const Codecs& codecs, const wire::Open& open,
               std::unique_ptr<engine::KvCache> cache)
      : engine_(engine), codecs_(codecs), open_(open), cache_(std::move(cache)) {}

  Result<std::vector<Testimony>> repeat(std::span<const Witnessed> steps) override {
    std::vector<Testimony> testimonies;
    for (const Witnessed& step : steps) {
      ISTHMUS_ASSIGN(Testimony testimony, repeat(step));
      testimonies.push_back(std::move(testimony));
    }
    return testimonies;
  }

 private:
  Result<Testimony> repeat(const Witnessed& witnessed) {
    const wire::Step& step = witnessed.step;
    Matrix rows(step.token_count, codecs_.up.width());
    ISTHMUS_TRY(
        (step.clean ? *codecs_.clean : codecs_.up).decode_into(witnessed.payload, rows.view()));
    const bool chooses = open_.reply_mode == wire::ReplyMode::kToken;
    engine::Slice slice{.cache = cache_.get(), .hidden = rows.view()};
    slice.output = chooses ? engine::Output::kLogits : engine::Output::kHidden;
    slice.rows = !witnessed.compared      ? engine::Rows::kNone
                 : tail_has_layers(open_) ? engine::Rows::kAll
                                          : engine::Rows::kLast;
    ISTHMUS_ASSIGN(std::vector<Matrix> outputs, engine_.forward({&slice, 1}));
    if (!witnessed.compared) return Testimony();
    if (!chooses) return testify(std::move(outputs.front()), codecs_.down);
    const wire::Sampling& s = step.sampling;
    Testimony testimony;
    ISTHMUS_ASSIGN(testimony.answer.token,
                   engine::sample(outputs.front().row(0),
                                  {.temperature = s.temperature,
                                   .top_k = s.top_k,
                                   .top_p = s.top_p,
                                   .min_p = s.min_p,
                                   .repetition_penalty = s.repetition_penalty,
                                   .seed = s.seed},
                                  witnessed.generated, cache_->length()));
    return testimony;
  }

  engine::Engine& engine_;
  const Codecs& codecs_;
  wire::Open open_;
  std::unique_ptr<engine::KvCache> cache_;
};

class RemoteWitness final : public Witness {
 public:
  RemoteWitness(std::unique_ptr<Remote> remote, const Codecs& codecs, codec::BoundaryCodec raw,
                const wire::Open& open)
      : remote_(std::move(remote)), codecs_(codecs), raw_(std::move(raw)), open_(open) {}

  Result<std::vector<Testimony>> repeat(std::span<const Witnessed> steps) override {
    std::vector<Testimony> testimonies;
    size_t sent = 0;
    while (testimonies.size() < steps.size()) {
      while (sent < steps.size() && remote_->can_send()) send(steps[sent++]);
      ISTHMUS_ASSIGN(const StepAnswer answer, remote_->receive());
      ISTHMUS_ASSIGN(Testimony testimony, read(steps[testimonies.size()], answer));
      testimonies.push_back(std::move(testimony));
    }
    return testimonies;
  }

 private:
  void send(const Witnessed& witnessed) {
    wire::Step step = witnessed.step;
    // A penalty looks at all that the server has chosen.
    step.wants_reply =
        step.wants_reply && (witnessed.compared || step.sampling.repetition_penalty != 1);
    remote_->send(step, witnessed.payload);
  }

  Result<Testimony> read(const Witnessed& witnessed, const StepAnswer& answer) const {
    Testimony testimony;
    testimony.answer.token = answer.result.token;
    if (!witnessed.compared || open_.reply_mode == wire::ReplyMode::kToken) return testimony;
    const wire::Step& step = witnessed.step;
    Matrix exact(answer_rows(step.token_count, step.wants_reply, tail_has_layers(open_)),
                 raw_.width());
    ISTHMUS_TRY(raw_.decode_into(answer.payload, exact.view()));
    return testify(std::move(exact), codecs_.down);
  }

  std::unique_ptr<Remote> remote_;
  const Codecs& codecs_;
  codec::BoundaryCodec raw_;
  wire::Open open_;
};

}  // namespace

size_t answer_rows(size_t token_count, bool wants_reply, bool tail_has_layers) {
  if (tail_has_layers) return token_count;
  return wants_reply ? 1 : 0;
}

Result<std::unique_ptr<Witness>> make_local_witness(engine::Engine& engine, const Codecs& codecs,
                                                    const wire::Open& open) {
  const engine::LayerWindow window{static_cast<int32_t>(open.cut), static_cast<int32_t>(open.tail)};
  ISTHMUS_ASSIGN(auto cache, engine.make_cache(window, static_cast<int32_t>(open.max_tokens)));
  return std::make_unique<LocalWitness>(engine, codecs, open, std::move(cache));
}

Result<std::unique_ptr<Witness>> make_remote_witness(const transport::ChannelOptions& server,
                                                     const SessionOptions& options,
                                                     const Codecs& codecs, const wire::Open& open,
                                                     uint32_t most_rows) {
  const codec::CodecSpec as_they_are{codec::Format::kF32};
  ISTHMUS_ASSIGN(codec::BoundaryCodec raw,
                 codec::BoundaryCodec::make(as_they_are, codecs.down.width()));
  wire::Open own = open;
  own.codec_down = as_they_are.to_string();
  ISTHMUS_ASSIGN(auto remote, Remote::open({server}, options, own));
  const wire::Opened& has = remote->opened();
  if (has.max_tokens < open.max_tokens || has.max_step_tokens < most_rows) {
    return fail(ErrorCode::kServerFull,
                "edge: the server that checks answers grants " + std::to_string(has.max_tokens) +
                    " tokens, " + std::to_string(has.max_step_tokens) +
                    " a step, the session has " + std::to_string(open.max_tokens) + " and " +
                    std::to_string(most_rows));
  }
  return std::make_unique<RemoteWitness>(std::move(remote), codecs, std::move(raw), open);
}

}  // namespace isthmus::edge
