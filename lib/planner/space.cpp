#include <algorithm>

#include "search.h"

namespace isthmus::planner {
namespace {

void add(CodecTable& table, uint32_t choice, const CodecPart& part) {
  if (table.parts.empty()) table.least = table.most = part;
  table.choices.push_back(choice);
  table.parts.push_back(part);
  take_least(table.least, part);
  take_most(table.most, part);
}

CodecTable single(const CodecPart& part) {
  CodecTable table;
  add(table, 0, part);
  return table;
}

}  // namespace

Space::Space(const Problem& problem) : problem_(problem), placements_(placements(problem)) {
  const auto [least, most] =
      std::minmax_element(problem.choices.contexts.begin(), problem.choices.contexts.end());
  least_context_ = *least;
  most_context_ = *most;
  make_segments();
  make_codecs();
  for (size_t i = 0; i < placements_.size(); ++i) {
    const std::vector<Block> list = blocks(i);
    Block whole = list.front();
    for (const Block& block : list) {
      take_least(whole.least, block.least);
      take_most(whole.most, block.most);
    }
    whole_.push_back(whole);
  }
}

void Space::make_segments() {
  const Choices& choices = problem_.choices;
  const size_t layers = static_cast<size_t>(problem_.device.model.layer_count);
  const size_t fronts = choices.front_bits.size();
  const size_t backs = choices.back_bits.size();
  const size_t kvs = choices.kv_bits.size();
  front_.resize((layers + 2) * fronts * kvs);
  tail_.resize((layers + 2) * fronts * kvs);
  back_.resize(placements_.size() * backs * kvs);
  loss_.resize((layers + 2) * 2 * fronts * backs * kvs);
  const auto index = [](auto value) { return static_cast<size_t>(value + 1); };
  const int32_t first_cut = placements_[choices.local ? 1 : 0].cut;
  for (size_t i = 0; i < placements_.size(); ++i) {
    const Placement& placement = placements_[i];
    const size_t tail = placement.is_local() ? 1 : index(placement.tail);
    // Placements share fronts and tails: each is made by the first that has it. The first cut of
    // all has every tail.
    const bool first_tail = placement.is_local() || placement.cut == first_cut;
    for (uint32_t kv = 0; kv < kvs; ++kv) {
      for (uint32_t front = 0; front < fronts; ++front) {
        if (!placement.has_tail()) {
          front_[(index(placement.cut) * fronts + front) * kvs + kv] =
              front_part(problem_, placement, front, kv);
        }
        if (first_tail)
          tail_[(tail * fronts + front) * kvs + kv] = tail_part(problem_, placement, front, kv);
      }
      for (uint32_t back = 0; back < backs; ++back)
        back_[(i * backs + back) * kvs + kv] = back_part(problem_, placement, back, kv);
    }
    if (placement.has_tail() && placement.tail != problem_.device.model.layer_count) continue;
    for (uint32_t front = 0; front < fronts; ++front)
      for (uint32_t back = 0; back < backs; ++back)
        for (uint32_t kv = 0; kv < kvs; ++kv) {
          const size_t row = index(placement.cut) * 2 + (placement.has_tail() ? 1 : 0);
          loss_[((row * fronts + front) * backs + back) * kvs + kv] =
              weight_loss(problem_, placement, front, back, kv);
        }
  }
}

void Space::make_codecs() {
  const int32_t layers = problem_.device.model.layer_count;
  const Choices& choices = problem_.choices;
  up_.push_back(single({}));  // the device alone
  for (int32_t cut = 0; cut <= layers; ++cut) {
    CodecTable& table = up_.emplace_back();
    for (uint32_t up = 0; up < choices.codecs_up.size(); ++up) {
      if (problem_.device.find_codec(choices.codecs_up[up])->crosses_at(cut))
        add(table, up, up_part(problem_, cut, up));
    }
  }
  down_.push_back(single(down_part(problem_, {}, 0)));  // an answer without rows
  for (int32_t tail = 0; tail <= layers; ++tail) {
    CodecTable& table = down_.emplace_back();
    for (uint32_t down = 0; down < choices.codecs_down.size(); ++down)
      add(table, down, down_part(problem_, {.tail = tail}, down));
  }
}

const CodecTable& Space::up(const Block& block) const {
  return up_[static_cast<size_t>(placement(block).cut + 1)];
}

const CodecTable& Space::down(const Block& block) const {
  // The device alone has neither codec: one part of zeros.
  if (placement(block).is_local()) return up_.front();
  return down_[static_cast<size_t>(placement(block).tail + 1)];
}

BlockPart Space::part(size_t i, uint32_t front, uint32_t back, uint32_t kv) const {
  const Placement& placement = placements_[i];
  const size_t fronts = problem_.choices.front_bits.size();
  const size_t backs = problem_.choices.back_bits.size();
  const size_t kvs = problem_.choices.kv_bits.size();
  const auto cut = static_cast<size_t>(placement.cut + 1);
  const size_t tail = placement.is_local() ? 1 : static_cast<size_t>(placement.tail + 1);
  const size_t row = cut * 2 + (placement.has_tail() ? 1 : 0);
  return make_block(problem_, placement, front_[(cut * fronts + front) * kvs + kv],
                    back_[(i * backs + back) * kvs + kv], tail_[(tail * fronts + front) * kvs + kv],
                    loss_[((row * fronts + front) * backs + back) * kvs + kv]);
}

uint64_t Space::blocks_per(const Block& whole) const {
  const size_t backs = placement(whole).is_local() ? 1 : problem_.choices.back_bits.size();
  return problem_.choices.front_bits.size() * backs * problem_.choices.kv_bits.size();
}

std::vector<Block> Space::blocks(size_t placement) const {
  const size_t backs = placements_[placement].is_local() ? 1 : problem_.choices.back_bits.size();
  std::vector<Block> list;
  for (uint32_t front = 0; front < problem_.choices.front_bits.size(); ++front)
    for (uint32_t back = 0; back < backs; ++back)
      for (uint32_t kv = 0; kv < problem_.choices.kv_bits.size(); ++kv) {
        const BlockPart made = part(placement, front, back, kv);
        list.push_back({static_cast<uint32_t>(placement), front, back, kv, made, made});
      }
  return list;
}

Bounds Space::bounds(const Block& block, bool with_prompt) const {
  const bool local = placement(block).is_local();
  const CodecTable& above = up(block);
  const CodecTable& below = down(block);
  Bounds bounds{timed_metrics(problem_, local, block.least, above.least, below.least, with_prompt),
                timed_metrics(problem_, local, block.most, above.most, below.most, with_prompt)};
  set_memory(block.least, least_context_, bounds.least);
  set_memory(block.most, most_context_, bounds.most);
  bounds.least[Metric::kContext] = -most_context_;
  bounds.most[Metric::kContext] = -least_context_;
  return bounds;
}

Metrics Space::timed(const Block& block, const CodecPart& up, const CodecPart& down,
                     bool with_prompt) const {
  return timed_metrics(problem_, placement(block).is_local(), block.least, up, down, with_prompt);
}

Metrics Space::contextual(const Block& block, uint32_t context) const {
  Metrics metrics;
  set_memory(block.least, problem_.choices.contexts[context], metrics);
  return metrics;
}

}  // namespace isthmus::planner
