#include <isthmus/planner/profile.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace isthmus::planner {
namespace {

constexpr double kLongest = 1e6;     // seconds
constexpr double kMostBytes = 1e15;  // of anything
constexpr int32_t kMostLayers = 4096;

tl::unexpected<Error> corrupt(const std::string& what) {
  return fail(ErrorCode::kCorrupt, "planner: profile: " + what);
}

// Finite and in [low, high].
Status check(const std::string& field, double value, double low, double high) {
  if (value >= low && value <= high) return {};
  return corrupt(field + " is " + std::to_string(value) + ", must be in [" + std::to_string(low) +
                 ", " + std::to_string(high) + "]");
}

// On straight lines between points of increasing `x`, at least one; the outer ones beyond them.
template <typename Point, typename X, typename Y>
double on_lines(const std::vector<Point>& points, double at, const X& x, const Y& y) {
  const auto above = std::find_if(points.begin(), points.end(),
                                  [&](const Point& point) { return x(point) >= at; });
  if (above == points.end()) return y(points.back());
  if (above == points.begin() || x(*above) == at) return y(*above);
  const Point& below = *(above - 1);
  const double share = (at - x(below)) / (x(*above) - x(below));
  return y(below) + share * (y(*above) - y(below));
}

Status check(const TimeTable& table, const std::string& field, int32_t layer_count) {
  const auto increasing = [](const std::vector<double>& points) {
    return std::adjacent_find(points.begin(), points.end(),
                              [](double a, double b) { return !(a < b); }) == points.end();
  };
  if (table.layers.size() < 2 || table.layers.front() != 0 || table.layers.back() != layer_count ||
      !increasing(table.layers)) {
    return corrupt(field + ".layers must increase from 0 to " + std::to_string(layer_count));
  }
  if (table.tokens.size() < 2 || table.tokens.front() != 1 || !increasing(table.tokens) ||
      !(table.tokens.back() <= 1e6)) {
    return corrupt(field + ".tokens must have two or more points and increase from 1");
  }
  if (table.seconds.size() != table.layers.size() * table.tokens.size()) {
    return corrupt(field + ".seconds has " + std::to_string(table.seconds.size()) +
                   " numbers, must have " +
                   std::to_string(table.layers.size() * table.tokens.size()));
  }
  for (const double seconds : table.seconds)
    ISTHMUS_TRY(check(field + ".seconds", seconds, 0, kLongest));
  return {};
}

Status check(const WeightCost& weights, const std::string& field, int32_t layer_count) {
  ISTHMUS_TRY(check(field + ".bits", weights.bits, 1, 32));
  if (weights.layer_bytes.size() != static_cast<size_t>(layer_count)) {
    return corrupt(field + ".layer_bytes has " + std::to_string(weights.layer_bytes.size()) +
                   " numbers, must have " + std::to_string(layer_count));
  }
  for (const uint64_t bytes : weights.layer_bytes)
    ISTHMUS_TRY(check(field + ".layer_bytes", static_cast<double>(bytes), 1, kMostBytes));
  ISTHMUS_TRY(check(field + ".head_bytes", static_cast<double>(weights.head_bytes), 1, kMostBytes));
  ISTHMUS_TRY(check(field + ".head_seconds", weights.head_seconds, 0, kLongest));
  return check(weights.time, field + ".time", layer_count);
}

Status check(const Affine& cost, const std::string& field, double most) {
  ISTHMUS_TRY(check(field + ".fixed", cost.fixed, 0, most));
  return check(field + ".per_row", cost.per_row, 0, most);
}

Status check(const CodecCost& codec, int32_t layer_count) {
  const std::string field = "codec '" + codec.spec + "'";
  if (codec.spec.empty()) return corrupt("a codec has no spec");
  ISTHMUS_TRY(check(codec.encode_seconds, field + ".encode_seconds", kLongest));
  ISTHMUS_TRY(check(codec.decode_seconds, field + ".decode_seconds", kLongest));
  if (codec.sizes.empty()) return corrupt(field + " has no sizes");
  int32_t before = -1;
  for (const MessageSize& size : codec.sizes) {
    ISTHMUS_TRY(check(field + ".sizes.cut", size.cut, before + 1, layer_count));
    ISTHMUS_TRY(check(size.bytes, field + ".sizes", kMostBytes));
    before = size.cut;
  }
  if (!codec.made_for_cut) return {};
  return check(field + ".made_for_cut", *codec.made_for_cut, 0, layer_count);
}

// Fails when two items have the same key.
template <typename Items, typename Key>
Status check_distinct(const Items& items, const Key& key, const std::string& field) {
  for (size_t i = 0; i < items.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (key(items[i]) == key(items[j])) return corrupt(field + " lists one precision twice");
  return {};
}

template <typename Items, typename Matches>
auto find(const Items& items, const Matches& matches) {
  const auto found = std::find_if(items.begin(), items.end(), matches);
  return found == items.end() ? nullptr : &*found;
}

/// The piece of a broken line that `x` lies on, and how far along.
struct Place {
  size_t piece = 0;
  double share = 0;
};

Place place_of(const std::vector<double>& points, double x) {
  const auto above = std::upper_bound(points.begin() + 1, points.end() - 1, x);
  const auto piece = static_cast<size_t>(above - points.begin()) - 1;
  return {piece, (x - points[piece]) / (points[piece + 1] - points[piece])};
}

}  // namespace

double TimeTable::at(double layer_count, double token_count) const {
  const Place row = place_of(layers, layer_count);
  const Place column = place_of(tokens, token_count);
  const auto along = [&](size_t r) {
    const double* line = seconds.data() + r * tokens.size() + column.piece;
    return line[0] + column.share * (line[1] - line[0]);
  };
  const double low = along(row.piece);
  return std::max(0.0, low + row.share * (along(row.piece + 1) - low));
}

double CodecCost::bytes(int32_t cut, double rows) const {
  return on_lines(
      sizes, cut, [](const MessageSize& size) { return size.cut; },
      [&](const MessageSize& size) { return size.bytes.at(rows); });
}

double MachineProfile::after_idle(double seconds) const {
  if (idle.empty()) return 1;
  return on_lines(
      idle, seconds, [](const IdleEffect& effect) { return effect.seconds; },
      [](const IdleEffect& effect) { return effect.factor; });
}

const WeightCost* MachineProfile::find_weights(int32_t bits) const {
  return find(weights, [&](const WeightCost& cost) { return cost.bits == bits; });
}

const KvCost* MachineProfile::find_kv(int32_t bits) const {
  return find(kv, [&](const KvCost& cost) { return cost.bits == bits; });
}

const CodecCost* MachineProfile::find_codec(std::string_view spec) const {
  return find(codecs, [&](const CodecCost& cost) { return cost.spec == spec; });
}

Status MachineProfile::validate() const {
  ISTHMUS_TRY(check("threads", threads, 1, 4096));
  ISTHMUS_TRY(check("model.layer_count", model.layer_count, 1, kMostLayers));
  ISTHMUS_TRY(check("model.hidden_size", model.hidden_size, 1, 1 << 24));
  ISTHMUS_TRY(check("model.vocab_size", model.vocab_size, 1, 1 << 30));
  if (weights.empty() || kv.empty()) return corrupt("weights and kv must not be empty");
  for (size_t i = 0; i < weights.size(); ++i)
    ISTHMUS_TRY(check(weights[i], "weights[" + std::to_string(i) + "]", model.layer_count));
  for (const KvCost& cost : kv) {
    ISTHMUS_TRY(check("kv.bits", cost.bits, 1, 32));
    ISTHMUS_TRY(
        check("kv.bytes_per_token_and_layer", cost.bytes_per_token_and_layer, 1, kMostBytes));
    ISTHMUS_TRY(
        check("kv.seconds_per_pair_and_layer", cost.seconds_per_pair_and_layer, 0, kLongest));
  }
  for (const CodecCost& codec : codecs) ISTHMUS_TRY(check(codec, model.layer_count));
  ISTHMUS_TRY(check_distinct(
      weights, [](const WeightCost& w) { return w.bits; }, "weights"));
  ISTHMUS_TRY(check_distinct(
      kv, [](const KvCost& k) { return k.bits; }, "kv"));
  ISTHMUS_TRY(check_distinct(
      codecs, [](const CodecCost& c) { return c.spec; }, "codecs"));
  if (weight_count) {
    ISTHMUS_TRY(
        check("weight_count.layers", static_cast<double>(weight_count->layers), 1, kMostBytes));
    ISTHMUS_TRY(check("weight_count.head", static_cast<double>(weight_count->head), 1, kMostBytes));
  }
  ISTHMUS_TRY(check("base_bytes", base_bytes, 0, kMostBytes));
  ISTHMUS_TRY(check("free_bytes", free_bytes, 1, kMostBytes));
  ISTHMUS_TRY(check("read_bytes_per_second", read_bytes_per_second, 0, kMostBytes));
  ISTHMUS_TRY(check("spread", spread, 0, 1e6));
  double before = -1;
  for (const IdleEffect& effect : idle) {
    ISTHMUS_TRY(check("idle.seconds", effect.seconds, 0, kLongest));
    if (!(effect.seconds > before)) return corrupt("idle.seconds does not increase");
    ISTHMUS_TRY(check("idle.factor", effect.factor, 0.01, 100));
    before = effect.seconds;
  }
  if (!watts) return {};
  ISTHMUS_TRY(check("watts.computing", watts->computing, 0, 1e6));
  return check("watts.waiting", watts->waiting, 0, 1e6);
}

Status LinkProfile::validate() const {
  ISTHMUS_TRY(check("rtt_seconds", rtt_seconds, 0, kLongest));
  ISTHMUS_TRY(check("rtt_p95_seconds", rtt_p95_seconds, rtt_seconds, kLongest));
  ISTHMUS_TRY(check("up_bits_per_second", up_bits_per_second, 1, kMostBytes));
  return check("down_bits_per_second", down_bits_per_second, 1, kMostBytes);
}

Result<MachineProfile> derive_profile(const MachineProfile& measured,
                                      const MachineDescription& description) {
  const std::pair<const char*, double> figures[] = {
      {"read_bytes_per_second", description.read_bytes_per_second},
      {"operations_per_second", description.operations_per_second},
      {"call_seconds", description.call_seconds},
      {"codec_seconds_per_value", description.codec_seconds_per_value},
      {"free_bytes", description.free_bytes}};
  for (const auto& [name, value] : figures) {
    if (!(value > 0 && std::isfinite(value))) {
      return fail(ErrorCode::kInvalidArgument, "planner: " + std::string(name) + " is " +
                                                   std::to_string(value) + ", must be above 0");
    }
  }
  MachineProfile profile = measured;
  profile.machine = description.machine;
  profile.base_bytes = description.base_bytes;
  profile.free_bytes = description.free_bytes;
  profile.read_bytes_per_second = description.read_bytes_per_second;
  profile.spread = 0;
  profile.watts.reset();
  profile.idle.clear();
  const auto roofline = [&](double bytes, double weights, double tokens) {
    return std::max(bytes / description.read_bytes_per_second,
                    2 * weights * tokens / description.operations_per_second);
  };
  for (WeightCost& cost : profile.weights) {
    const auto all = static_cast<double>(
        std::accumulate(cost.layer_bytes.begin(), cost.layer_bytes.end(), uint64_t{0}));
    const auto head = static_cast<double>(cost.head_bytes);
    double layer_weights = 8 * all / cost.bits;
    double head_weights = 8 * head / cost.bits;
    if (measured.weight_count) {
      layer_weights = static_cast<double>(measured.weight_count->layers);
      head_weights = static_cast<double>(measured.weight_count->head);
    }
    cost.head_seconds = roofline(head, head_weights, 1);
    for (size_t i = 0; i < cost.time.seconds.size(); ++i) {
      const double share =
          cost.time.layers[i / cost.time.tokens.size()] / profile.model.layer_count;
      const double tokens = cost.time.tokens[i % cost.time.tokens.size()];
      cost.time.seconds[i] =
          description.call_seconds + roofline(share * all, share * layer_weights, tokens);
    }
  }
  for (KvCost& cost : profile.kv) {
    cost.seconds_per_pair_and_layer =
        cost.bytes_per_token_and_layer / description.read_bytes_per_second;
  }
  const double row_seconds = description.codec_seconds_per_value * profile.model.hidden_size;
  for (CodecCost& codec : profile.codecs)
    codec.encode_seconds = codec.decode_seconds = {.fixed = 0, .per_row = row_seconds};
  ISTHMUS_TRY(profile.validate());
  return profile;
}

}  // namespace isthmus::planner
