// Three or more machines in a row: device, near server, far server.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/cost.h>
#include <isthmus/planner/profile.h>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace isthmus::planner {

/// One machine and the way to it.
struct ChainStage {
  MachineProfile profile;
  double memory_bytes = std::numeric_limits<double>::infinity();  ///< for base, weights and caches
  LinkProfile link;   ///< from the machine before it; unused for the first
  std::string codec;  ///< on that link
};

enum class ChainObjective : uint8_t {
  kToken,       ///< seconds between two tokens: the sum over machines and links
  kThroughput,  ///< seconds of the busiest machine or direction of a link: tokens per second of
                ///< many sessions that share all of them, inverted
};

struct ChainProblem {
  std::vector<ChainStage> stages;  ///< at least one, in order
  int32_t context = 2048;
  int32_t position = 512;  ///< tokens in front of the decoded one
  ChainObjective objective = ChainObjective::kToken;

  /// \returns kInvalidArgument, kModelMismatch.
  [[nodiscard]] Status validate() const;
};

/// Machine i runs layers [ends[i - 1], ends[i]) at bits[i]; the last one also the head. There may
/// be fewer machines than stages: those behind the last are not used. A machine in between may run
/// no layer and only pass messages on.
struct ChainPlan {
  std::vector<int32_t> ends;
  std::vector<int32_t> bits;
  double seconds = 0;
};

/// The best chain by dynamic programming over (machine, end of its segment): the best way to have
/// run the first l layers on the first i machines is the best of one way on the machines before it
/// and a segment here, because what follows depends on l alone. Exact for both objectives; equals
/// are settled in a fixed way, fewer machines first. \returns the errors of validate; kOutOfMemory
/// when no chain fits the machines' memories.
[[nodiscard]] Result<ChainPlan> plan_chain(const ChainProblem& problem);

/// Objective and memory of one chain by the formulas directly; infinite when it does not fit.
[[nodiscard]] double chain_seconds(const ChainProblem& problem, const ChainPlan& plan);

}  // namespace isthmus::planner
