// How much worse a model predicts a text when something about it is changed: measured token by
// token beside a reference that reads the same text.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/text/tokenizer.h>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace isthmus::audit {

/// A text in windows of equal length. Each is read from position 0 without the ones before it, and
/// predicts every token but its first.
struct TextWindows {
  std::vector<int32_t> tokens;  ///< a whole number of windows
  size_t window = 512;          ///< tokens; at least 2

  [[nodiscard]] size_t count() const { return tokens.size() / window; }
  [[nodiscard]] std::span<const int32_t> tokens_of(size_t index) const {
    return std::span(tokens).subspan(index * window, window);
  }
};

/// The first `max_tokens` tokens of `text`, rounded down to whole windows; the tokenizer puts
/// nothing in front. \returns kInvalidArgument for a window below 2, or when there is not one whole
/// window.
[[nodiscard]] Result<TextWindows> make_windows(std::string_view text,
                                               const text::Tokenizer& tokenizer, size_t window,
                                               size_t max_tokens);

/// Whether a window of `text`, or 32 tokens from its start on if it is shorter (all there is of a
/// shorter text), stands anywhere in `other`, token by token: what was learnt from
/// `other` is then no measure on `text`.
[[nodiscard]] bool overlap(const TextWindows& text, const TextWindows& other);

/// One predicted token. Logarithms are natural.
struct Prediction {
  double nll_reference = 0;  ///< -log of the probability that the reference gave the true token
  double nll = 0;            ///< the same under what is evaluated
  double kl = 0;             ///< divergence of what is evaluated from the reference, KL(ref || it)
  bool flipped = false;      ///< whether the likeliest token is another one (smallest id of equals)
};

/// Every prediction of a text, window by window.
struct PredictionLog {
  size_t per_window = 0;  ///< predictions of a window: one less than its tokens
  std::vector<Prediction> predictions;

  [[nodiscard]] size_t windows() const {
    return per_window == 0 ? 0 : predictions.size() / per_window;
  }
};

/// Ends of an interval that holds the true value with 95 % confidence.
struct Interval {
  double low = 0;
  double high = 0;
};

/// The log in a few numbers.
struct Quality {
  size_t predictions = 0;
  double perplexity = 0;
  double perplexity_reference = 0;
  double kl_nats = 0;     ///< mean over predictions
  double top1_flips = 0;  ///< fraction of predictions
  double change = 0;      ///< perplexity / perplexity_reference - 1
  /// Of `change`: Student's t over the windows' differences of mean NLL, so what windows have in
  /// common cancels. Absent for fewer than two windows.
  std::optional<Interval> change_interval;
};

/// \throws std::invalid_argument for an empty log or one that is not whole windows.
[[nodiscard]] Quality summarize(const PredictionLog& log);

/// The mean of several logs' relative changes of perplexity over the same text, for example of one
/// spec at several cuts, with its interval: windows are compared with themselves, so what cuts have
/// in common is not counted as independent. \throws std::invalid_argument for no logs, or logs of
/// different shapes.
struct MeanChange {
  double change = 0;
  std::optional<Interval> interval;
};
[[nodiscard]] MeanChange mean_change(std::span<const PredictionLog* const> logs);

}  // namespace isthmus::audit
