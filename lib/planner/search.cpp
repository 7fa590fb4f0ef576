#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <tuple>

namespace isthmus::planner {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool breaks(const Metrics& metrics, const Constraint& constraint) {
  return !(metrics[constraint.metric] <= constraint.limit);
}

// How far above its limit, in units of the limit; of one unit where that is 0.
double excess_over(const Metrics& metrics, const Constraint& constraint) {
  const double above = metrics[constraint.metric] - constraint.limit;
  if (!(above > 0)) return 0;
  return above / (constraint.limit == 0 ? 1 : std::abs(constraint.limit));
}

/// Calls `visit(up, down, metrics)` for each pair of choices of codecs of a block, but for those of
/// a codec up for which `enter(bounds, count of pairs)` says no.
template <typename Enter, typename Visit>
void for_each_pair(const Space& space, const Block& block, bool with_prompt, const Enter& enter,
                   const Visit& visit) {
  const CodecTable& ups = space.up(block);
  const CodecTable& downs = space.down(block);
  for (size_t i = 0; i < ups.parts.size(); ++i) {
    const CodecPart& up = ups.parts[i];
    if (downs.parts.size() > 1) {
      const Bounds bounds{space.timed(block, up, downs.least, with_prompt),
                          space.timed(block, up, downs.most, with_prompt)};
      if (!enter(bounds, downs.parts.size())) continue;
    }
    for (size_t j = 0; j < downs.parts.size(); ++j) {
      visit(ups.choices[i], downs.choices[j], space.timed(block, up, downs.parts[j], with_prompt));
    }
  }
}

/// Calls `visit(context index, metrics)` for each context of a block.
template <typename Visit>
void for_each_context(const Space& space, const Block& block, const Visit& visit) {
  for (uint32_t context = 0; context < space.problem().choices.contexts.size(); ++context)
    visit(context, space.contextual(block, context));
}

/// The best so far.
struct Best {
  double score = kInfinity;
  std::optional<Candidate> candidate;

  void offer(double offered, const Candidate& who) {
    if (!(offered < kInfinity)) return;
    if (offered < score || (offered == score && who < *candidate)) {
      score = offered;
      candidate = who;
    }
  }
};

/// Whether bounds leave room for something as good as `best`.
bool worth_a_look(const Goal& goal, const Bounds& bounds, const Best& best) {
  const double least = goal.score(bounds.least);
  return least < kInfinity && least <= best.score && goal.allows(bounds.least, true) &&
         goal.allows(bounds.least, false);
}

/// The goal without the constraints that all within the bounds meet.
Goal unsettled(const Goal& goal, const Bounds& bounds) {
  if (goal.excess) return goal;
  Goal rest = goal;
  std::erase_if(rest.constraints, [&](const Constraint& c) { return !breaks(bounds.most, c); });
  return rest;
}

void improve(const Space& space, const Goal& goal, const Block& block, Best& best) {
  Best context;
  for_each_context(space, block, [&](uint32_t i, const Metrics& metrics) {
    if (goal.allows(metrics, true)) context.offer(goal.score(metrics, true), {.context = i});
  });
  if (!context.candidate) return;
  for_each_pair(
      space, block, goal.needs_prompt(),
      [&](const Bounds& bounds, size_t) {
        return goal.allows(bounds.least, false) &&
               context.score + goal.score(bounds.least, false) <= best.score;
      },
      [&](uint32_t up, uint32_t down, const Metrics& metrics) {
        if (!goal.allows(metrics, false)) return;
        best.offer(context.score + goal.score(metrics, false),
                   {.placement = block.placement,
                    .front = block.front,
                    .back = block.back,
                    .kv = block.kv,
                    .context = context.candidate->context,
                    .up = up,
                    .down = down});
      });
}

/// What the bounds of several candidates say about a constraint.
enum class Verdict : uint8_t { kNone, kSome, kAll };

Verdict verdict(const Bounds& bounds, const Constraint& constraint) {
  const double least = bounds.least[constraint.metric];
  const double most = bounds.most[constraint.metric];
  if (most <= constraint.limit) return Verdict::kNone;
  // All break it. Whether they were measured is only known when all were, or none.
  const bool alike = most < kInfinity || !(least < kInfinity);
  return !(least <= constraint.limit) && alike ? Verdict::kAll : Verdict::kSome;
}

/// Counts what breaks each constraint. What bounds settle is counted at once, constraint by
/// constraint; only the open ones are looked at more closely.
class Counter {
 public:
  explicit Counter(const Space& space)
      : space_(space),
        constraints_(space.problem().constraints),
        contexts_(space.problem().choices.contexts.size()) {
    for (const Constraint& constraint : constraints_)
      census_.rejections.push_back({.constraint = constraint});
  }

  Census run() {
    State all;
    for (size_t i = 0; i < constraints_.size(); ++i) all.open.push_back(i);
    for (size_t i = 0; i < space_.placement_count(); ++i) {
      const Block& whole = space_.whole(i);
      const uint64_t size = contexts_ * space_.pair_count(whole) * space_.blocks_per(whole);
      census_.candidates += size;
      const State state = settle(whole, size, all);
      if (state.open.empty()) continue;
      for (const Block& block : space_.blocks(i)) {
        const State rest = settle(block, contexts_ * space_.pair_count(block), state);
        if (!rest.open.empty()) look_into(block, rest);
      }
    }
    return std::move(census_);
  }

 private:
  /// What is known about several candidates.
  struct State {
    std::vector<size_t> open;  ///< constraints that some break and some do not
    bool alive = true;         ///< none of the others is broken

    [[nodiscard]] bool has_open(const std::vector<Constraint>& constraints, bool contextual) const {
      return std::any_of(open.begin(), open.end(), [&](size_t i) {
        return is_contextual(constraints[i].metric) == contextual;
      });
    }
  };

  [[nodiscard]] bool needs_prompt(const State& state) const {
    return std::any_of(state.open.begin(), state.open.end(),
                       [&](size_t i) { return constraints_[i].metric == Metric::kFirstToken; });
  }

  // Counts `size` candidates for the constraints that their bounds settle.
  State settle(const Bounds& bounds, uint64_t size, const State& before) {
    State after{.alive = before.alive};
    for (const size_t i : before.open) {
      const Verdict found = verdict(bounds, constraints_[i]);
      if (found == Verdict::kSome) after.open.push_back(i);
      if (found != Verdict::kAll) continue;
      after.alive = false;
      add(i, bounds.least, size);
    }
    return after;
  }

  State settle(const Block& block, uint64_t size, const State& before) {
    State after = settle(space_.bounds(block, needs_prompt(before)), size, before);
    if (after.open.empty() && after.alive) census_.feasible += size;
    return after;
  }

  void add(size_t i, const Metrics& metrics, uint64_t size) {
    census_.rejections[i].candidates += size;
    if (!(metrics[constraints_[i].metric] < kInfinity)) census_.rejections[i].unmeasured += size;
  }

  // Whether metrics of one group break nothing; counts `size` for what they break.
  bool inspect(const State& state, const Metrics& metrics, bool contextual, uint64_t size) {
    bool allowed = true;
    for (const size_t i : state.open) {
      if (is_contextual(constraints_[i].metric) != contextual) continue;
      if (!breaks(metrics, constraints_[i])) continue;
      allowed = false;
      add(i, metrics, size);
    }
    return allowed;
  }

  void look_into(const Block& block, const State& state) {
    const uint64_t pairs = space_.pair_count(block);
    uint64_t good_contexts = 0;
    for_each_context(space_, block, [&](uint32_t, const Metrics& metrics) {
      good_contexts += inspect(state, metrics, true, pairs) ? 1 : 0;
    });
    const uint64_t good_pairs =
        state.has_open(constraints_, false) ? count_pairs(block, state) : pairs;
    if (state.alive) census_.feasible += good_contexts * good_pairs;
  }

  // Pairs of codecs that break nothing.
  uint64_t count_pairs(const Block& block, const State& state) {
    State timed{.alive = true};
    std::copy_if(state.open.begin(), state.open.end(), std::back_inserter(timed.open),
                 [&](size_t i) { return !is_contextual(constraints_[i].metric); });
    uint64_t good = 0;
    State row;  // of the codec up that is looked at
    for_each_pair(
        space_, block, needs_prompt(timed),
        [&](const Bounds& bounds, size_t count) {
          row = settle(bounds, contexts_ * count, timed);
          if (row.open.empty() && row.alive) good += count;
          return !row.open.empty();
        },
        [&](uint32_t, uint32_t, const Metrics& metrics) {
          const bool single = space_.down(block).parts.size() == 1;
          const State& open = single ? timed : row;
          if (inspect(open, metrics, false, contexts_) && open.alive) ++good;
        });
    return good;
  }

  const Space& space_;
  const std::vector<Constraint>& constraints_;
  const uint64_t contexts_;
  Census census_;
};

bool at_least_as_good(std::span<const double> a, std::span<const double> b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!(a[i] <= b[i])) return false;
  return true;
}

/// Points that none other of them dominates, each for something that has it, the points close
/// together: looking for what beats a point is most of the work.
template <typename Owner>
class Members {
 public:
  explicit Members(std::vector<Metric> axes) : axes_(std::move(axes)), point_(axes_.size()) {}

  [[nodiscard]] const std::vector<Owner>& owners() const { return owners_; }

  /// Whether a member is at least as good, or something was not measured and has no place on an
  /// axis. One that beat a point likely beats the next: it moves to the front, which makes fronts
  /// of a thousand members several times faster.
  [[nodiscard]] bool beat(const Metrics& metrics) {
    for (size_t i = 0; i < axes_.size(); ++i) {
      point_[i] = metrics[axes_[i]];
      if (point_[i] == kInfinity) return true;
    }
    for (size_t i = 0; i < owners_.size(); ++i) {
      if (!at_least_as_good(values(i), point_)) continue;
      swap(i, 0);
      return true;
    }
    return false;
  }

  /// Adds what no member beats, in place of those that it beats. Of equals the first stays.
  void offer(const Metrics& metrics, const Owner& owner) {
    if (beat(metrics)) return;
    for (size_t i = owners_.size(); i-- > 0;) {
      if (!at_least_as_good(point_, values(i))) continue;
      swap(i, owners_.size() - 1);
      owners_.pop_back();
      values_.resize(values_.size() - axes_.size());
    }
    owners_.push_back(owner);
    values_.insert(values_.end(), point_.begin(), point_.end());
  }

 private:
  [[nodiscard]] std::span<double> values(size_t i) {
    return {values_.data() + i * axes_.size(), axes_.size()};
  }
  void swap(size_t a, size_t b) {
    if (a == b) return;
    std::swap(owners_[a], owners_[b]);
    std::ranges::swap_ranges(values(a), values(b));
  }

  std::vector<Metric> axes_;
  std::vector<double> point_;   // what was last compared
  std::vector<double> values_;  // [member, axis]
  std::vector<Owner> owners_;
};

std::vector<Metric> axes_of(const Problem& problem, bool contextual) {
  std::vector<Metric> axes = problem.axes;
  std::erase_if(axes, [&](Metric metric) { return is_contextual(metric) != contextual; });
  return axes;
}

/// Candidates that none other dominates, as far as they were offered. They come in their order, so
/// what equals a member comes too late.
class Front {
 public:
  explicit Front(const Space& space)
      : space_(space),
        contextual_axes_(axes_of(space.problem(), true)),
        timed_axes_(axes_of(space.problem(), false)),
        members_(space.problem().axes) {}

  std::vector<Candidate> run() {
    const Goal all{.constraints = space_.problem().constraints};
    for (size_t i = 0; i < space_.placement_count(); ++i) {
      const Bounds bounds = space_.bounds(space_.whole(i), needs_prompt(all));
      if (!worth_a_look(all, bounds)) continue;
      const Goal open = unsettled(all, bounds);
      for (const Block& block : space_.blocks(i)) {
        const Bounds inner = space_.bounds(block, needs_prompt(open));
        if (worth_a_look(open, inner)) look_into(block, inner, unsettled(open, inner));
      }
    }
    std::vector<Candidate> list = members_.owners();
    std::sort(list.begin(), list.end());
    return list;
  }

 private:
  struct Context {
    uint32_t index = 0;
    Metrics metrics;
  };
  struct Pair {
    uint32_t up = 0;
    uint32_t down = 0;
    Metrics metrics;
  };

  [[nodiscard]] bool needs_prompt(const Goal& open) const {
    return open.needs_prompt() || std::find(timed_axes_.begin(), timed_axes_.end(),
                                            Metric::kFirstToken) != timed_axes_.end();
  }

  [[nodiscard]] bool worth_a_look(const Goal& open, const Bounds& bounds) {
    return open.allows(bounds.least, true) && open.allows(bounds.least, false) &&
           !members_.beat(bounds.least);
  }

  [[nodiscard]] static Metrics joined(const Metrics& timed, const Metrics& contextual) {
    Metrics metrics = timed;
    for (const Metric metric : {Metric::kDeviceMemory, Metric::kServerMemory, Metric::kContext})
      metrics[metric] = contextual[metric];
    return metrics;
  }

  // A context and a pair of codecs that are on the front together are each on that of their own
  // axes, within their block.
  void look_into(const Block& block, const Bounds& whole, const Goal& open) {
    Members<Context> contexts(contextual_axes_);
    for_each_context(space_, block, [&](uint32_t index, const Metrics& metrics) {
      if (open.allows(metrics, true)) contexts.offer(metrics, {index, metrics});
    });
    if (contexts.owners().empty()) return;
    Members<Pair> pairs(timed_axes_);
    for_each_pair(
        space_, block, needs_prompt(open),
        [&](const Bounds& bounds, size_t) {
          return open.allows(bounds.least, false) &&
                 !members_.beat(joined(bounds.least, whole.least));
        },
        [&](uint32_t up, uint32_t down, const Metrics& metrics) {
          if (open.allows(metrics, false)) pairs.offer(metrics, {up, down, metrics});
        });
    for (const Context& context : contexts.owners()) {
      for (const Pair& pair : pairs.owners()) {
        members_.offer(joined(pair.metrics, context.metrics), {.placement = block.placement,
                                                               .front = block.front,
                                                               .back = block.back,
                                                               .kv = block.kv,
                                                               .context = context.index,
                                                               .up = pair.up,
                                                               .down = pair.down});
      }
    }
  }

  const Space& space_;
  std::vector<Metric> contextual_axes_;
  std::vector<Metric> timed_axes_;
  Members<Candidate> members_;
};

}  // namespace

double Goal::score(const Metrics& metrics, bool contextual) const {
  if (!excess) return is_contextual(objective) == contextual ? metrics[objective] : 0;
  double sum = 0;
  for (const Constraint& constraint : constraints)
    if (is_contextual(constraint.metric) == contextual) sum += excess_over(metrics, constraint);
  return sum;
}

bool Goal::allows(const Metrics& metrics, bool contextual) const {
  return excess ||
         std::none_of(constraints.begin(), constraints.end(), [&](const Constraint& constraint) {
           return is_contextual(constraint.metric) == contextual && breaks(metrics, constraint);
         });
}

bool Goal::needs_prompt() const {
  return (!excess && objective == Metric::kFirstToken) ||
         std::any_of(constraints.begin(), constraints.end(), [](const Constraint& constraint) {
           return constraint.metric == Metric::kFirstToken;
         });
}

std::optional<Candidate> minimize(const Space& space, const Goal& goal,
                                  const std::function<bool(const Placement&)>& wanted) {
  // The most promising placements first: then most of the others need no look.
  std::vector<std::pair<double, size_t>> order;
  const bool with_prompt = goal.needs_prompt();
  for (size_t i = 0; i < space.placement_count(); ++i) {
    const Block& whole = space.whole(i);
    if (wanted && !wanted(space.placement(whole))) continue;
    const Bounds bounds = space.bounds(whole, with_prompt);
    if (worth_a_look(goal, bounds, {})) order.emplace_back(goal.score(bounds.least), i);
  }
  std::sort(order.begin(), order.end());
  Best best;
  for (const auto& [least, placement] : order) {
    if (least > best.score) break;
    const Goal open = unsettled(goal, space.bounds(space.whole(placement), with_prompt));
    for (const Block& block : space.blocks(placement)) {
      const Bounds bounds = space.bounds(block, open.needs_prompt());
      if (worth_a_look(open, bounds, best)) improve(space, unsettled(open, bounds), block, best);
    }
  }
  return best.candidate;
}

Census count(const Space& space) {
  return Counter(space).run();
}

std::vector<Candidate> pareto_front(const Space& space) {
  if (space.problem().axes.empty()) return {};
  return Front(space).run();
}

}  // namespace isthmus::planner
