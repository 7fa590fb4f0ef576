#include <isthmus/train/fit.h>

#include <iterator>
#include <limits>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

namespace isthmus::train {
namespace {

/// What a run remembers beside the trainer's state: a line of numbers, then the caller's.
struct Memory {
  double best_loss = std::numeric_limits<double>::infinity();
  int64_t best_steps = 0;
  int64_t since_best = 0;  // measurements
  std::string callers;

  [[nodiscard]] std::string to_note() const {
    std::ostringstream note;
    note.precision(17);
    note << best_loss << ' ' << best_steps << ' ' << since_best << '\n' << callers;
    return std::move(note).str();
  }

  [[nodiscard]] static Result<Memory> parse(const std::string& note) {
    Memory memory;
    std::istringstream in(note);
    if (!(in >> memory.best_loss >> memory.best_steps >> memory.since_best) || in.get() != '\n')
      return fail(ErrorCode::kCorrupt, "train: the checkpoint's note is '" + note + "'");
    memory.callers.assign(std::istreambuf_iterator<char>(in), {});
    return memory;
  }
};

Result<bool> is_there(const std::filesystem::path& path) {
  std::error_code error;
  const bool there = std::filesystem::exists(path, error);
  if (error) return fail(ErrorCode::kIo, "train: '" + path.string() + "': " + error.message());
  return there;
}

class Fit {
 public:
  Fit(Trainer& trainer, const FitOptions& options, const FitEvents& events)
      : trainer_(trainer), options_(options), events_(events) {}

  Result<FitResult> run() {
    const int64_t planned = trainer_.options().steps;
    ISTHMUS_ASSIGN(const bool goes_on, is_there(options_.checkpoint));
    if (goes_on) {
      ISTHMUS_ASSIGN(const std::string note, trainer_.resume(options_.checkpoint));
      ISTHMUS_ASSIGN(memory_, Memory::parse(note));
      if (events_.on_resume) ISTHMUS_TRY(events_.on_resume(memory_.callers));
    } else {
      ISTHMUS_TRY(measure());
    }
    while (trainer_.steps_done() < planned && !out_of_patience()) {
      ISTHMUS_ASSIGN(const StepReport report, trainer_.step());
      if (events_.on_step) events_.on_step(report);
      if (report.step % options_.validate_every == 0 || report.step == planned)
        ISTHMUS_TRY(measure());
    }
    return FitResult{memory_.best_loss, memory_.best_steps, trainer_.steps_done() < planned};
  }

 private:
  [[nodiscard]] bool out_of_patience() const {
    return options_.patience > 0 && memory_.since_best >= options_.patience;
  }

  Status measure() {
    ISTHMUS_ASSIGN(const double loss, trainer_.validate());
    const bool best = loss < memory_.best_loss;
    ++memory_.since_best;
    if (best) memory_ = {.best_loss = loss, .best_steps = trainer_.steps_done()};
    if (events_.on_validation)
      ISTHMUS_TRY(events_.on_validation(trainer_.steps_done(), loss, best));
    if (options_.checkpoint.empty()) return {};
    if (events_.note) memory_.callers = events_.note();
    return trainer_.save(options_.checkpoint, memory_.to_note());
  }

  Trainer& trainer_;
  const FitOptions& options_;
  const FitEvents& events_;
  Memory memory_;
};

}  // namespace

Result<FitResult> fit(Trainer& trainer, const FitOptions& options, const FitEvents& events) {
  if (options.validate_every < 1 || options.patience < 0) {
    return fail(ErrorCode::kInvalidArgument,
                "train: validate_every is " + std::to_string(options.validate_every) +
                    " and patience " + std::to_string(options.patience) +
                    ", must be at least 1 and 0");
  }
  return Fit(trainer, options, events).run();
}

}  // namespace isthmus::train
