#include <isthmus/planner/cost.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "parts.h"

namespace isthmus::planner {
namespace {

constexpr double kUnmeasured = std::numeric_limits<double>::infinity();
constexpr double kBitsPerByte = 8;
constexpr size_t kMostInFlight = 64;  // checked by Problem::completed

// Layers [first, end) of a machine, with or without the head, that waits `idle` seconds between
// decoded tokens.
SegmentPart segment_part(const Problem& problem, const MachineProfile& machine, int32_t bits,
                         int32_t kv_bits, int32_t first, int32_t end, bool head, double idle) {
  const WeightCost& weights = *machine.find_weights(bits);
  const KvCost& kv = *machine.find_kv(kv_bits);
  const auto begin = weights.layer_bytes.begin();
  const auto bytes = static_cast<double>(std::accumulate(begin + first, begin + end, uint64_t{0}));
  const auto all =
      static_cast<double>(std::accumulate(begin, weights.layer_bytes.end(), uint64_t{0}));
  const double weighted = static_cast<double>(weights.layer_bytes.size()) * bytes / all;
  const auto seconds = [&](double tokens, double position) {
    return segment_seconds(weights, kv, end - first, weighted, tokens, position);
  };
  const Chunks chunks = chunks_of(problem.workload);
  const double middle = problem.workload.prompt_tokens + 0.5 * problem.workload.reply_tokens;
  const double head_seconds = head ? weights.head_seconds : 0;
  return {.seconds = {.token = machine.after_idle(idle) * (seconds(1, middle) + head_seconds),
                      .full = seconds(chunks.full_tokens, chunks.full_position),
                      .last = seconds(chunks.last_tokens, chunks.last_position) + head_seconds},
          .bytes = bytes + (head ? static_cast<double>(weights.head_bytes) : 0),
          .bytes_per_token = kv.bytes_per_token_and_layer * (end - first)};
}

double loss_at(const Problem& problem, int32_t cut, const std::string& spec) {
  if (spec == "f32") return 0;  // bit-exact
  double loss = -1;
  for (const CodecQuality& row : problem.evidence.codecs) {
    if (row.cut == cut && row.spec == spec) loss = std::max({loss, row.change, 0.0});
  }
  return loss < 0 ? kUnmeasured : loss;
}

// What can be guessed without a message: the floor that attacks are compared with.
bool reads_no_message(const AttackFinding& row) {
  return row.attack == "unigram_prior" || row.attack == "language_prior";
}

// The worst of all that was audited at this cut and spec.
void set_privacy(const Problem& problem, int32_t cut, const std::string& spec, CodecPart& part) {
  bool audited = false;
  bool whole_prompt = false;
  part.epsilon_per_row = part.epsilon_per_prompt = 0;
  for (const AttackFinding& row : problem.evidence.attacks) {
    if (row.cut != cut || row.spec != spec || reads_no_message(row)) continue;
    audited = true;
    part.attack = std::max(part.attack, row.top1_high);
    part.epsilon_per_row =
        std::max(part.epsilon_per_row, row.epsilon_per_row.value_or(kUnmeasured));
    if (row.prompt_rows < problem.workload.prompt_tokens) continue;
    whole_prompt = true;
    part.epsilon_per_prompt =
        std::max(part.epsilon_per_prompt, row.epsilon_per_prompt.value_or(kUnmeasured));
  }
  if (!audited) part.attack = part.epsilon_per_row = kUnmeasured;
  if (!whole_prompt) part.epsilon_per_prompt = kUnmeasured;
}

StepCost make_step(const Problem& problem, bool local, const BlockPart& block, const CodecPart& up,
                   const CodecPart& down, double PerStep::*kind) {
  return {.front = block.front.*kind,
          .encode_up = up.encode.*kind,
          .up = up.send.*kind,
          .decode_up = up.decode.*kind,
          .back = block.back.*kind,
          .encode_down = down.encode.*kind,
          .down = down.send.*kind,
          .decode_down = down.decode.*kind,
          .tail = block.tail.*kind,
          .round_trip = local ? 0 : problem.link.rtt_seconds};
}

}  // namespace

double segment_seconds(const WeightCost& weights, const KvCost& kv, int32_t layers,
                       double weighted_layers, double tokens, double position) {
  return weights.time.at(weighted_layers, tokens) +
         kv.seconds_per_pair_and_layer * layers * tokens * position;
}

double prompt_seconds(const StepCost& full, int32_t full_count, const StepCost& last,
                      int32_t in_flight) {
  double device = 0;  // when each is free again
  double up = 0;
  double server = 0;
  double down = 0;
  std::array<double, kMostInFlight> answered = {};
  const auto take_answer = [&](int32_t i) {
    const StepCost& step = i < full_count ? full : last;
    device = std::max(device, answered[i % in_flight]) + step.after_answer();
  };
  for (int32_t i = 0; i <= full_count; ++i) {
    const StepCost& step = i < full_count ? full : last;
    if (i >= in_flight) take_answer(i - in_flight);
    device += step.before_sending();
    up = std::max(up, device) + step.up;
    server = std::max(server, up + 0.5 * step.round_trip) + step.on_server();
    down = std::max(down, server) + step.down;
    answered[i % in_flight] = down + 0.5 * step.round_trip;
  }
  for (int32_t i = std::max(0, full_count + 1 - in_flight); i <= full_count; ++i) take_answer(i);
  return device;
}

Chunks chunks_of(const Workload& work) {
  Chunks chunks;
  chunks.full_count = (work.prompt_tokens - 1) / work.chunk_tokens;
  chunks.full_tokens = work.chunk_tokens;
  chunks.full_position = 0.5 * work.chunk_tokens * std::max(0, chunks.full_count - 1);
  chunks.last_position = static_cast<double>(chunks.full_count) * work.chunk_tokens;
  chunks.last_tokens = work.prompt_tokens - chunks.last_position;
  return chunks;
}

SegmentPart front_part(const Problem& problem, const Placement& placement, uint32_t front,
                       uint32_t kv) {
  if (placement.is_local()) return {};
  return segment_part(problem, problem.device, problem.choices.front_bits[front],
                      problem.choices.kv_bits[kv], 0, placement.cut, /*head=*/false,
                      problem.link.rtt_seconds);
}

SegmentPart back_part(const Problem& problem, const Placement& placement, uint32_t back,
                      uint32_t kv) {
  if (placement.is_local()) return {};
  const int32_t end = placement.has_tail() ? placement.tail : problem.server.model.layer_count;
  return segment_part(problem, problem.server, problem.choices.back_bits[back],
                      problem.choices.kv_bits[kv], placement.cut, end, !placement.has_tail(),
                      problem.link.rtt_seconds);
}

SegmentPart tail_part(const Problem& problem, const Placement& placement, uint32_t front,
                      uint32_t kv) {
  if (!placement.is_local() && !placement.has_tail()) return {};
  const int32_t first = placement.is_local() ? 0 : placement.tail;
  return segment_part(problem, problem.device, problem.choices.front_bits[front],
                      problem.choices.kv_bits[kv], first, problem.device.model.layer_count,
                      /*head=*/true, placement.is_local() ? 0 : problem.link.rtt_seconds);
}

double weight_loss(const Problem& problem, const Placement& placement, uint32_t front,
                   uint32_t back, uint32_t kv) {
  const int32_t front_bits = problem.choices.front_bits[front];
  const int32_t back_bits = placement.is_local() ? front_bits : problem.choices.back_bits[back];
  // Where both sides have the same bits the cut does not matter. A tail and its head belong to the
  // front, which no evaluation of two ranges covers.
  const bool uniform = front_bits == back_bits;
  const std::string& precision = problem.device.precision;
  if (!placement.is_local() && problem.server.precision != precision) return kUnmeasured;
  double loss = -1;
  for (const WeightQuality& row : problem.evidence.weights) {
    const bool placed = uniform || (row.cut == placement.cut && !placement.has_tail());
    if (placed && row.front_bits == front_bits && row.back_bits == back_bits &&
        row.kv_bits == problem.choices.kv_bits[kv] && row.precision == precision)
      loss = std::max({loss, row.change, 0.0});
  }
  return loss < 0 ? kUnmeasured : loss;
}

BlockPart make_block(const Problem& problem, const Placement& placement, const SegmentPart& front,
                     const SegmentPart& back, const SegmentPart& tail, double weight_loss) {
  const double server_base = placement.is_local() ? 0 : problem.server.base_bytes;
  return {.front = front.seconds,
          .back = back.seconds,
          .tail = tail.seconds,
          .weight_loss = weight_loss,
          .device_bytes = problem.device.base_bytes + front.bytes + tail.bytes,
          .server_bytes = server_base + back.bytes,
          .device_bytes_per_token = front.bytes_per_token + tail.bytes_per_token,
          .server_bytes_per_token = problem.workload.sessions * back.bytes_per_token};
}

CodecPart up_part(const Problem& problem, int32_t cut, uint32_t up) {
  const std::string& spec = problem.choices.codecs_up[up];
  const CodecCost& device = *problem.device.find_codec(spec);
  const CodecCost& server = *problem.server.find_codec(spec);
  const Chunks chunks = chunks_of(problem.workload);
  CodecPart part;
  const auto set = [&](double PerStep::*kind, double rows) {
    part.encode.*kind = device.encode_seconds.at(rows);
    part.decode.*kind = server.decode_seconds.at(rows);
    part.send.*kind = kBitsPerByte * (device.bytes(cut, rows) + kStepOverheadBytes) /
                      problem.link.up_bits_per_second;
  };
  set(&PerStep::token, 1);
  set(&PerStep::full, chunks.full_tokens);
  set(&PerStep::last, chunks.last_tokens);
  part.token_bytes = device.bytes(cut, 1) + kStepOverheadBytes;
  part.loss = loss_at(problem, cut, spec);
  set_privacy(problem, cut, spec, part);
  return part;
}

CodecPart down_part(const Problem& problem, const Placement& placement, uint32_t down) {
  CodecPart part;
  const double answer = kBitsPerByte * kAnswerOverheadBytes / problem.link.down_bits_per_second;
  part.send = {.token = answer, .full = answer, .last = answer};
  part.token_bytes = kAnswerOverheadBytes;
  if (!placement.has_tail()) return part;
  const std::string& spec = problem.choices.codecs_down[down];
  const CodecCost& device = *problem.device.find_codec(spec);
  const CodecCost& server = *problem.server.find_codec(spec);
  const Chunks chunks = chunks_of(problem.workload);
  const bool every_row = placement.tail < problem.device.model.layer_count;
  const auto set = [&](double PerStep::*kind, double rows) {
    if (rows == 0) return;
    part.encode.*kind = server.encode_seconds.at(rows);
    part.decode.*kind = device.decode_seconds.at(rows);
    part.send.*kind = kBitsPerByte * (device.bytes(placement.tail, rows) + kStepOverheadBytes) /
                      problem.link.down_bits_per_second;
  };
  set(&PerStep::token, 1);
  set(&PerStep::full, every_row ? chunks.full_tokens : 0);
  set(&PerStep::last, every_row ? chunks.last_tokens : 1);
  part.token_bytes = device.bytes(placement.tail, 1) + kStepOverheadBytes;
  part.loss = loss_at(problem, placement.tail, spec);
  return part;
}

StepCost token_step(const Problem& problem, bool local, const BlockPart& block, const CodecPart& up,
                    const CodecPart& down) {
  return make_step(problem, local, block, up, down, &PerStep::token);
}

void set_memory(const BlockPart& block, int32_t context, Metrics& metrics) {
  metrics[Metric::kDeviceMemory] = block.device_bytes + block.device_bytes_per_token * context;
  metrics[Metric::kServerMemory] = block.server_bytes + block.server_bytes_per_token * context;
  metrics[Metric::kContext] = -context;
}

Metrics timed_metrics(const Problem& problem, bool local, const BlockPart& block,
                      const CodecPart& up, const CodecPart& down, bool with_prompt) {
  const StepCost token = token_step(problem, local, block, up, down);
  const double total = token.total();
  const double device = token.before_sending() + token.after_answer();
  Metrics metrics;
  metrics[Metric::kToken] = total;
  if (with_prompt) {
    metrics[Metric::kFirstToken] =
        prompt_seconds(make_step(problem, local, block, up, down, &PerStep::full),
                       chunks_of(problem.workload).full_count,
                       make_step(problem, local, block, up, down, &PerStep::last),
                       problem.workload.chunks_in_flight);
  }
  metrics[Metric::kThroughput] = std::max(total / problem.workload.sessions, token.on_server());
  metrics[Metric::kTraffic] = up.token_bytes + down.token_bytes;
  if (problem.device.watts) {
    const double waiting = token.up + token.on_server() + token.down + token.round_trip;
    metrics[Metric::kEnergy] =
        problem.device.watts->computing * device + problem.device.watts->waiting * waiting;
  }
  metrics[Metric::kQuality] = block.weight_loss + up.loss + down.loss;
  metrics[Metric::kAttack] = up.attack;
  metrics[Metric::kEpsilonPerRow] = up.epsilon_per_row;
  metrics[Metric::kEpsilonPerPrompt] = up.epsilon_per_prompt;
  return metrics;
}

Prediction predict(const Problem& problem, const Candidate& candidate) {
  return predict(problem, placements(problem)[candidate.placement], candidate);
}

Prediction predict(const Problem& problem, const Placement& placement, const Candidate& candidate) {
  const bool local = placement.is_local();
  const BlockPart block =
      make_block(problem, placement, front_part(problem, placement, candidate.front, candidate.kv),
                 back_part(problem, placement, candidate.back, candidate.kv),
                 tail_part(problem, placement, candidate.front, candidate.kv),
                 weight_loss(problem, placement, candidate.front, candidate.back, candidate.kv));
  const CodecPart up = local ? CodecPart{} : up_part(problem, placement.cut, candidate.up);
  const CodecPart down = local ? CodecPart{} : down_part(problem, placement, candidate.down);

  Prediction prediction;
  prediction.metrics = timed_metrics(problem, local, block, up, down, /*with_prompt=*/true);
  set_memory(block, problem.choices.contexts[candidate.context], prediction.metrics);
  const StepCost token = token_step(problem, local, block, up, down);
  prediction.token = token;
  prediction.device = token.front + token.tail;
  prediction.codec = token.encode_up + token.decode_up + token.encode_down + token.decode_down;
  prediction.wire = token.round_trip + token.up + token.down;
  prediction.server = token.back;
  prediction.bytes_up = local ? 0 : up.token_bytes;
  prediction.bytes_down = local ? 0 : down.token_bytes;
  return prediction;
}

}  // namespace isthmus::planner
