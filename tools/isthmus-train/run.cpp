#include "run.h"

#include <isthmus/artefact/artefact.h>
#include <isthmus/core/clock.h>
#include <isthmus/model/model_file.h>
#include <isthmus/text/tokenizer.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include "common/artefact_flags.h"
#include "common/format.h"
#include "common/terminal.h"
#include "common/text_file.h"
#include "specs.h"

namespace isthmus::tools {
namespace {

tl::unexpected<Error> cannot_read(const std::filesystem::path& path, const std::error_code& why) {
  return fail(ErrorCode::kIo, "train: cannot read '" + path.string() + "': " + why.message());
}

/// The files that a path stands for, in the order of their names.
Result<std::vector<std::filesystem::path>> files_of(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const bool folder = fs::is_directory(path, error);
  if (error) return cannot_read(path, error);
  if (!folder) return std::vector{path};
  std::vector<fs::path> files;
  fs::recursive_directory_iterator entry(path, error);
  for (; !error && entry != fs::end(entry); entry.increment(error)) {
    if (entry->path().extension() != ".txt") continue;
    std::error_code unknown;
    const fs::file_type type = entry->status(unknown).type();
    if (type == fs::file_type::none) return cannot_read(entry->path(), unknown);
    if (type == fs::file_type::regular) files.push_back(entry->path());
  }
  if (error) return cannot_read(path, error);
  std::ranges::sort(files);
  return files;
}

Result<std::vector<int32_t>> read_tokens(const TrainFlags& flags,
                                         const text::Tokenizer& tokenizer) {
  std::vector<int32_t> tokens;
  for (const std::filesystem::path& path : flags.text) {
    ISTHMUS_ASSIGN(const auto files, files_of(path));
    for (const std::filesystem::path& file : files) {
      ISTHMUS_ASSIGN(const std::string text, read_text(file));
      const std::vector<int32_t> more = tokenizer.encode(text);
      tokens.insert(tokens.end(), more.begin(), more.end());
    }
  }
  return tokens;
}

train::TrainText divide(std::vector<int32_t> tokens, double held_out) {
  const auto count = static_cast<size_t>(held_out * static_cast<double>(tokens.size()));
  const auto middle = tokens.end() - static_cast<std::ptrdiff_t>(count);
  train::TrainText text{.held_out = {middle, tokens.end()}};
  tokens.erase(middle, tokens.end());
  text.training = std::move(tokens);
  return text;
}

/// The magnitude below which a share of the latents lies.
Result<double> clip_of(MatrixView<const float> rows, const Matrix& encoder, double share) {
  ISTHMUS_ASSIGN(const auto projection, codec::Projection::make(/*id=*/0, encoder, {}));
  Matrix latents(rows.rows(), encoder.rows());
  ISTHMUS_TRY(projection.encode(rows, latents.view()));
  const std::span<float> sizes = latents.view().values();
  for (float& value : sizes) value = std::abs(value);
  const auto index = static_cast<std::ptrdiff_t>(share * static_cast<double>(sizes.size() - 1));
  std::ranges::nth_element(sizes, sizes.begin() + index);
  return double{sizes[static_cast<size_t>(index)]};
}

class Training {
 public:
  Training(const TrainFlags& flags, std::shared_ptr<const model::ModelFile> file,
           text::Tokenizer tokenizer, train::Trainer trainer)
      : flags_(flags),
        file_(std::move(file)),
        tokenizer_(std::move(tokenizer)),
        trainer_(std::move(trainer)) {}

  Result<TrainReport> run() {
    ISTHMUS_TRY(start());
    report_.command = flags_.command;
    report_.codec = codec_.to_string();
    report_.distil = flags_.options.distil;
    report_.data_hash = trainer_.data_hash();
    report_.tokens_per_step = flags_.options.tokens_per_step();
    const train::FitEvents events{
        .on_resume = [this](const std::string& note) { return go_on(note); },
        .on_step = [this](const train::StepReport& step) { note_step(step); },
        .on_validation = [this](int64_t steps, double loss,
                                bool best) { return note_validation(steps, loss, best); },
        .note = [this] { return to_json(report_); }};
    ISTHMUS_ASSIGN(report_.result, train::fit(trainer_, flags_.fit, events));
    ISTHMUS_TRY(write_log());
    return std::move(report_);
  }

 private:
  Status start() {
    ISTHMUS_ASSIGN(const Matrix rows, start_rows());
    train::Parts parts;
    if (!flags_.from.empty()) {
      ISTHMUS_ASSIGN(parts, parts_of(flags_.from));
    } else {
      ISTHMUS_ASSIGN(parts.encoder,
                     train::principal_components(rows.view(), flags_.dims, flags_.options.seed));
    }
    double clip = 0;
    if (flags_.codec.find('*') != std::string::npos) {
      ISTHMUS_ASSIGN(clip, clip_of(rows.view(), parts.encoder, flags_.clip_quantile));
    }
    ISTHMUS_ASSIGN(codec_, codec::CodecSpec::parse(with_clip(flags_.codec, clip)));
    if (flags_.from.empty()) {
      ISTHMUS_ASSIGN(parts.decoder,
                     train::fit_decoder(rows.view(), parts.encoder, codec_, flags_.options.seed));
    }
    if (flags_.soft_prompt > 0) {
      ISTHMUS_ASSIGN(parts.soft_prompt, first_soft_prompt());
    }
    if (flags_.adapter_rank > 0) {
      const int32_t cut = flags_.options.cut;
      ISTHMUS_ASSIGN(parts.adapters,
                     train::fresh_adapters(*file_, cut, cut + flags_.adapter_layers,
                                           flags_.adapter_rank, flags_.options.seed));
    }
    const bool sends_clean = flags_.options.cut == 0 && codec_.mechanism() != nullptr;
    if (flags_.options.prefix && !sends_clean) {
      return fail(ErrorCode::kInvalidArgument,
                  "train: --prefix is for cut 0 behind a mechanism; elsewhere every row crosses");
    }
    return trainer_.start_from(parts, codec_, origin());
  }

  /// What decides the parts that are trained from, beside what the trainer knows.
  std::string origin() const {
    std::string text = flags_.from.empty() ? format("%zu components of %zu tokens", flags_.dims,
                                                    flags_.start_tokens)
                                           : "artefact " + from_;
    if (flags_.soft_prompt > 0)
      text += format(", %zu rows of '%s'", flags_.soft_prompt, flags_.soft_prompt_text.c_str());
    if (flags_.adapter_rank > 0)
      text +=
          format(", adapters of rank %zu on %d layers", flags_.adapter_rank, flags_.adapter_layers);
    return text;
  }

  // Of the text and, in front of the first layer, of the whole vocabulary: a prompt may hold words
  // that the text has not.
  Result<Matrix> start_rows() {
    ISTHMUS_ASSIGN(Matrix text, trainer_.boundary_rows(flags_.start_tokens));
    if (flags_.options.cut > 0) return text;
    constexpr int32_t kMostWords = 65'536;
    const int32_t vocabulary = file_->config().vocab_size;
    const int32_t stride = (vocabulary + kMostWords - 1) / kMostWords;
    std::vector<int32_t> words;
    for (int32_t id = 0; id < vocabulary; id += stride) words.push_back(id);
    ISTHMUS_ASSIGN(const Matrix table, trainer_.boundary_rows(words));
    Matrix rows(text.rows() + table.rows(), text.cols());
    std::ranges::copy(text.view().values(), rows.data());
    std::ranges::copy(table.view().values(), rows.row(text.rows()).data());
    return rows;
  }

  Result<train::Parts> parts_of(const std::filesystem::path& path) {
    ISTHMUS_ASSIGN(const auto artefacts, load_artefacts({path}));
    ISTHMUS_TRY(artefacts.front()->check(file_->config(), flags_.options.cut));
    // Adapters must be of these very weights.
    ISTHMUS_TRY(artefact::adapted_model(file_, artefacts, trainer_.fingerprint()));
    from_ = artefacts.front()->codec().to_string();
    return artefacts.front()->parts();
  }

  Result<Matrix> first_soft_prompt() {
    const std::vector<int32_t> words = tokenizer_.encode(flags_.soft_prompt_text);
    if (words.empty())
      return fail(ErrorCode::kInvalidArgument, "train: the soft prompt's text has no tokens");
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < flags_.soft_prompt; ++i) tokens.push_back(words[i % words.size()]);
    return trainer_.boundary_rows(tokens);
  }

  void note_step(const train::StepReport& step) {
    report_.steps.push_back({step, seconds()});
    bar_.update(static_cast<double>(step.step) / static_cast<double>(flags_.options.steps));
  }

  Status note_validation(int64_t steps, double loss, bool best) {
    report_.validations.push_back({steps, loss, best, seconds()});
    std::fputs(to_line(report_).c_str(), stdout);
    std::fflush(stdout);
    if (best) ISTHMUS_TRY(write_artefact());
    return write_log();
  }

  /// What an earlier run of this training told, and its best, whose parts may be wanted only now.
  /// Stopped between the two, it has written a better one than its checkpoint knows.
  Status go_on(const std::string& note) {
    ISTHMUS_TRY(recall(note, report_));
    ISTHMUS_ASSIGN(const auto best, artefact::Artefact::load(flags_.out));
    ISTHMUS_TRY(best.check(file_->config(), flags_.options.cut));
    const artefact::Origin& origin = best.origin();
    if (origin.fingerprint != trainer_.fingerprint() || origin.data != trainer_.data_hash() ||
        origin.codec != codec_) {
      return fail(ErrorCode::kInvalidArgument,
                  "train: '" + flags_.out.string() + "' is not what the checkpoint's run made");
    }
    report_.codec = best.codec().to_string();
    return write_parts(best);
  }

  Status write_artefact() {
    ISTHMUS_ASSIGN(train::Parts parts, trainer_.parts());
    ISTHMUS_ASSIGN(const auto artefact,
                   artefact::Artefact::make({.model = artefact::model_name(file_->config()),
                                             .fingerprint = trainer_.fingerprint(),
                                             .cut = flags_.options.cut,
                                             .codec = codec_,
                                             .data = trainer_.data_hash(),
                                             .command = flags_.command},
                                            std::move(parts)));
    report_.codec = artefact.codec().to_string();
    ISTHMUS_TRY(artefact.save(flags_.out));
    return write_parts(artefact);
  }

  Status write_parts(const artefact::Artefact& artefact) {
    if (!flags_.device_part.empty())
      ISTHMUS_TRY(artefact.save(flags_.device_part, artefact::Half::kDevice));
    if (flags_.server_part.empty()) return {};
    return artefact.save(flags_.server_part, artefact::Half::kServer);
  }

  Status write_log() {
    report_.peak_memory_mb = peak_resident_mb();
    if (!flags_.log.empty()) ISTHMUS_TRY(write_text(flags_.log, to_json(report_)));
    if (flags_.svg.empty()) return {};
    return write_text(flags_.svg, to_chart(report_));
  }

  [[nodiscard]] double seconds() const { return seconds_between(start_, clock_.now()); }

  const TrainFlags& flags_;
  std::shared_ptr<const model::ModelFile> file_;
  text::Tokenizer tokenizer_;
  train::Trainer trainer_;
  codec::CodecSpec codec_;
  std::string from_;  // the codec of the artefact that was begun with
  TrainReport report_;
  SteadyClock clock_;
  Clock::TimePoint start_ = clock_.now();
  ProgressBar bar_{"training"};
};

}  // namespace

Result<TrainReport> train_as(const TrainFlags& flags) {
  ISTHMUS_ASSIGN(auto file, model::ModelFile::open(flags.model));
  ISTHMUS_ASSIGN(text::Tokenizer tokenizer, text::Tokenizer::make(file->tokenizer()));
  ISTHMUS_ASSIGN(std::vector<int32_t> tokens, read_tokens(flags, tokenizer));
  ISTHMUS_ASSIGN(
      train::Trainer trainer,
      train::Trainer::make(file, divide(std::move(tokens), flags.held_out), flags.options));
  return Training(flags, file, std::move(tokenizer), std::move(trainer)).run();
}

}  // namespace isthmus::tools
