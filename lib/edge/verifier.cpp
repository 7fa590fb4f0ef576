#include "verifier.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <span>

namespace isthmus::edge {
namespace {

// How sure a verdict is: an honest server is wronged once in so many conversations.
constexpr double kWronged = 1e-4;

/// How likely at least `count` of `trials` are when each has probability `p`.
double binomial_tail(uint64_t count, uint64_t trials, double p) {
  double below = 0;
  for (uint64_t k = 0; k < count; ++k) {
    const auto n = static_cast<double>(trials);
    const auto i = static_cast<double>(k);
    below += std::exp(std::lgamma(n + 1) - std::lgamma(i + 1) - std::lgamma(n - i + 1) +
                      i * std::log(p) + (n - i) * std::log1p(-p));
  }
  return 1 - below;
}

double distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  return std::sqrt(sum);
}

/// How much further than coding alone explains a row is from the one it should be, relative to that
/// one; of all rows the largest. 0 for what is the same bit for bit.
double row_error(const Matrix& rows, const Testimony& should) {
  double worst = 0;
  const std::vector<float> zero(should.exact.cols());
  for (size_t r = 0; r < should.exact.rows(); ++r) {
    const auto exact = should.exact.row(r);
    const double excess = distance(rows.row(r), exact) - distance(should.answer.rows.row(r), exact);
    if (excess <= 0) continue;
    const double error = excess / distance(exact, zero);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

}  // namespace

Status VerifyOptions::validate() const {
  const auto outside = [](const char* field, double value, const char* range) {
    return fail(ErrorCode::kInvalidArgument, std::string("edge: verify.") + field + " is " +
                                                 std::to_string(value) + ", must be in " + range);
  };
  if (!(share >= 0 && share <= 1)) return outside("share", share, "[0, 1]");
  if (!(row_tolerance >= 0)) return outside("row_tolerance", row_tolerance, "[0, infinity)");
  if (!(token_tolerance > 0 && token_tolerance < 1))
    return outside("token_tolerance", token_tolerance, "(0, 1)");
  return {};
}

bool VerifyReport::is_suspicious() const {
  return wrong_rows > 0 || binomial_tail(other_tokens, compared, token_tolerance) < kWronged;
}

Verifier::Verifier(std::unique_ptr<Witness> witness, const VerifyOptions& options)
    : witness_(std::move(witness)), options_(options) {
  report_.token_tolerance = options.token_tolerance;
}

bool Verifier::drawn() {
  constexpr double kUnit = 0x1p-53;
  return static_cast<double>(random_.next_u64() >> 11U) * kUnit < options_.share;
}

void Verifier::sent(const wire::Step& step, const std::vector<std::byte>& payload) {
  sent_.push_back({.step = step, .payload = payload, .generated = {}, .compared = false});
  sent_.back().step.position = end_;
  end_ += step.token_count;
}

void Verifier::answered(Answer answer) {
  Witnessed step = std::move(sent_.front());
  sent_.pop_front();
  for (const auto& [position, id] : chosen_) {
    if (position >= step.step.reply_start) step.generated.push_back(id);
  }
  if (answer.token >= 0)
    chosen_.emplace_back(step.step.position + step.step.token_count, answer.token);
  step.compared = (answer.token >= 0 || !answer.rows.empty()) && drawn();
  answered_.emplace_back(std::move(step), std::move(answer));
}

void Verifier::truncate(int32_t length) {
  sent_.clear();
  end_ = static_cast<uint32_t>(length);
  std::erase_if(answered_, [&](const auto& entry) { return entry.first.step.position >= end_; });
  std::erase_if(chosen_, [&](const auto& entry) { return entry.first > end_; });
}

void Verifier::check() {
  const auto last = std::find_if(answered_.rbegin(), answered_.rend(),
                                 [](const auto& entry) { return entry.first.compared; });
  const auto count = static_cast<size_t>(std::distance(last, answered_.rend()));
  if (!report_.problem.empty()) answered_.clear();
  if (count == 0 || answered_.empty()) return;
  if (const Status done = repeat(count); !done) report_.problem = done.error().message;
}

Status Verifier::repeat(size_t count) {
  std::vector<Witnessed> steps;
  std::vector<Answer> answers;
  for (size_t i = 0; i < count; ++i) {
    steps.push_back(std::move(answered_.front().first));
    answers.push_back(std::move(answered_.front().second));
    answered_.pop_front();
  }
  ISTHMUS_ASSIGN(const std::vector<Testimony> testimonies, witness_->repeat(steps));
  for (size_t i = 0; i < count; ++i) {
    if (steps[i].compared) compare(answers[i], testimonies[i]);
  }
  return {};
}

void Verifier::compare(const Answer& answer, const Testimony& testimony) {
  ++report_.compared;
  if (answer.token != testimony.answer.token) ++report_.other_tokens;
  const double error = row_error(answer.rows, testimony);
  report_.worst_row_error = std::max(report_.worst_row_error, error);
  if (!(error <= options_.row_tolerance)) ++report_.wrong_rows;
}

}  // namespace isthmus::edge
