// Profiles as JSON files. Numbers are written so that they read back bit for bit.
#include <isthmus/planner/profile.h>

#include <nlohmann/json.hpp>

#include "json_view.h"
#include "profile_json.h"

namespace isthmus::planner {
namespace {

using nlohmann::json;

constexpr int32_t kVersion = 1;
constexpr double kLargest = 1e15;  // what ranges allow is checked by validate()
constexpr const char* kMachineKind = "machine";
constexpr const char* kLinkKind = "link";

Status check_kind(const JsonView& view, const char* kind) {
  ISTHMUS_ASSIGN(const std::string found, view.text("isthmus_profile"));
  if (found != kind) return view.error("is a profile of a " + found + ", not of a " + kind);
  ISTHMUS_ASSIGN(const int32_t version, view.integer("version", 1, 1 << 30));
  if (version != kVersion) return view.error("has version " + std::to_string(version) + ", not 1");
  return {};
}

// The errors of validate() do not know which file they are about.
Status name_file(const JsonView& view, const Status& valid) {
  constexpr std::string_view kModule = "planner: ";
  if (valid) return {};
  return view.error(std::string_view(valid.error().message).substr(kModule.size()));
}

json to_node(const Affine& cost) {
  return {{"fixed", cost.fixed}, {"per_row", cost.per_row}};
}

Result<Affine> read_affine(const JsonView& parent, const char* key) {
  ISTHMUS_ASSIGN(const JsonView view, parent.object(key));
  Affine cost;
  ISTHMUS_ASSIGN(cost.fixed, view.number("fixed", 0, kLargest));
  ISTHMUS_ASSIGN(cost.per_row, view.number("per_row", 0, kLargest));
  return cost;
}

Result<ModelShape> read_shape(const JsonView& view) {
  ModelShape shape;
  ISTHMUS_ASSIGN(shape.architecture, view.text("architecture"));
  ISTHMUS_ASSIGN(shape.layer_count, view.integer("layer_count", 1, 1 << 30));
  ISTHMUS_ASSIGN(shape.hidden_size, view.integer("hidden_size", 1, 1 << 30));
  ISTHMUS_ASSIGN(shape.vocab_size, view.integer("vocab_size", 1, 1 << 30));
  return shape;
}

Result<WeightCost> read_weights(const JsonView& view) {
  WeightCost cost;
  ISTHMUS_ASSIGN(cost.bits, view.integer("bits", 1, 32));
  ISTHMUS_ASSIGN(const std::vector<double> bytes, view.numbers("layer_bytes", 1, kLargest));
  cost.layer_bytes.assign(bytes.begin(), bytes.end());
  ISTHMUS_ASSIGN(const double head_bytes, view.number("head_bytes", 1, kLargest));
  cost.head_bytes = static_cast<uint64_t>(head_bytes);
  ISTHMUS_ASSIGN(cost.head_seconds, view.number("head_seconds", 0, kLargest));
  ISTHMUS_ASSIGN(const JsonView time, view.object("time"));
  ISTHMUS_ASSIGN(cost.time.layers, time.numbers("layers", 0, kLargest));
  ISTHMUS_ASSIGN(cost.time.tokens, time.numbers("tokens", 1, kLargest));
  ISTHMUS_ASSIGN(cost.time.seconds, time.numbers("seconds", 0, kLargest));
  return cost;
}

Result<KvCost> read_kv(const JsonView& view) {
  KvCost cost;
  ISTHMUS_ASSIGN(cost.bits, view.integer("bits", 1, 32));
  ISTHMUS_ASSIGN(cost.bytes_per_token_and_layer,
                 view.number("bytes_per_token_and_layer", 1, kLargest));
  ISTHMUS_ASSIGN(cost.seconds_per_pair_and_layer,
                 view.number("seconds_per_pair_and_layer", 0, kLargest));
  return cost;
}

Result<CodecCost> read_codec(const JsonView& view) {
  CodecCost cost;
  ISTHMUS_ASSIGN(cost.spec, view.text("spec"));
  ISTHMUS_ASSIGN(cost.encode_seconds, read_affine(view, "encode_seconds"));
  ISTHMUS_ASSIGN(cost.decode_seconds, read_affine(view, "decode_seconds"));
  ISTHMUS_ASSIGN(const std::vector<JsonView> sizes, view.items("sizes"));
  for (const JsonView& item : sizes) {
    MessageSize size;
    ISTHMUS_ASSIGN(size.cut, item.integer("cut", 0, 1 << 30));
    ISTHMUS_ASSIGN(size.bytes, read_affine(item, "bytes"));
    cost.sizes.push_back(size);
  }
  if (view.has("made_for_cut")) {
    ISTHMUS_ASSIGN(cost.made_for_cut, view.integer("made_for_cut", 0, 1 << 30));
  }
  if (view.has("up_only")) {
    ISTHMUS_ASSIGN(cost.up_only, view.boolean("up_only"));
  }
  return cost;
}

Result<IdleEffect> read_idle(const JsonView& view) {
  IdleEffect effect;
  ISTHMUS_ASSIGN(effect.seconds, view.number("seconds", 0, kLargest));
  ISTHMUS_ASSIGN(effect.factor, view.number("factor", 0, kLargest));
  return effect;
}

// Reads every item of a list into `values`.
template <typename T>
Status read_list(const JsonView& view, const char* key, Result<T> (*read)(const JsonView&),
                 std::vector<T>& values) {
  ISTHMUS_ASSIGN(const std::vector<JsonView> items, view.items(key));
  for (const JsonView& item : items) {
    ISTHMUS_ASSIGN(T value, read(item));
    values.push_back(std::move(value));
  }
  return {};
}

}  // namespace

json to_node(const MachineProfile& profile) {
  json weights = json::array();
  for (const WeightCost& cost : profile.weights) {
    weights.push_back({{"bits", cost.bits},
                       {"layer_bytes", cost.layer_bytes},
                       {"head_bytes", cost.head_bytes},
                       {"head_seconds", cost.head_seconds},
                       {"time",
                        {{"layers", cost.time.layers},
                         {"tokens", cost.time.tokens},
                         {"seconds", cost.time.seconds}}}});
  }
  json kv = json::array();
  for (const KvCost& cost : profile.kv) {
    kv.push_back({{"bits", cost.bits},
                  {"bytes_per_token_and_layer", cost.bytes_per_token_and_layer},
                  {"seconds_per_pair_and_layer", cost.seconds_per_pair_and_layer}});
  }
  json codecs = json::array();
  for (const CodecCost& cost : profile.codecs) {
    json sizes = json::array();
    for (const MessageSize& size : cost.sizes)
      sizes.push_back({{"cut", size.cut}, {"bytes", to_node(size.bytes)}});
    codecs.push_back({{"spec", cost.spec},
                      {"encode_seconds", to_node(cost.encode_seconds)},
                      {"decode_seconds", to_node(cost.decode_seconds)},
                      {"sizes", std::move(sizes)}});
    if (cost.made_for_cut) codecs.back()["made_for_cut"] = *cost.made_for_cut;
    if (cost.up_only) codecs.back()["up_only"] = true;
  }
  json node = {{"isthmus_profile", kMachineKind},
               {"version", kVersion},
               {"machine", profile.machine},
               {"precision", profile.precision},
               {"threads", profile.threads},
               {"model",
                {{"architecture", profile.model.architecture},
                 {"layer_count", profile.model.layer_count},
                 {"hidden_size", profile.model.hidden_size},
                 {"vocab_size", profile.model.vocab_size}}},
               {"weights", std::move(weights)},
               {"kv", std::move(kv)},
               {"codecs", std::move(codecs)},
               {"base_bytes", profile.base_bytes},
               {"free_bytes", profile.free_bytes},
               {"read_bytes_per_second", profile.read_bytes_per_second},
               {"spread", profile.spread}};
  for (const IdleEffect& effect : profile.idle)
    node["idle"].push_back({{"seconds", effect.seconds}, {"factor", effect.factor}});
  if (profile.weight_count) {
    node["weight_count"] = {{"layers", profile.weight_count->layers},
                            {"head", profile.weight_count->head}};
  }
  if (profile.watts) {
    node["watts"] = {{"computing", profile.watts->computing}, {"waiting", profile.watts->waiting}};
  }
  return node;
}

json to_node(const LinkProfile& link) {
  return {{"isthmus_profile", kLinkKind},
          {"version", kVersion},
          {"rtt_seconds", link.rtt_seconds},
          {"rtt_p95_seconds", link.rtt_p95_seconds},
          {"up_bits_per_second", link.up_bits_per_second},
          {"down_bits_per_second", link.down_bits_per_second}};
}

Result<MachineProfile> read_machine(const JsonView& view) {
  ISTHMUS_TRY(check_kind(view, kMachineKind));
  MachineProfile profile;
  ISTHMUS_ASSIGN(profile.machine, view.text("machine"));
  ISTHMUS_ASSIGN(profile.precision, view.text("precision"));
  ISTHMUS_ASSIGN(profile.threads, view.integer("threads", 1, 1 << 30));
  ISTHMUS_ASSIGN(const JsonView model, view.object("model"));
  ISTHMUS_ASSIGN(profile.model, read_shape(model));
  ISTHMUS_TRY(read_list(view, "weights", read_weights, profile.weights));
  ISTHMUS_TRY(read_list(view, "kv", read_kv, profile.kv));
  ISTHMUS_TRY(read_list(view, "codecs", read_codec, profile.codecs));
  ISTHMUS_ASSIGN(profile.base_bytes, view.number("base_bytes", 0, kLargest));
  ISTHMUS_ASSIGN(profile.free_bytes, view.number("free_bytes", 1, kLargest));
  ISTHMUS_ASSIGN(profile.read_bytes_per_second, view.number("read_bytes_per_second", 0, kLargest));
  ISTHMUS_ASSIGN(profile.spread, view.number("spread", 0, kLargest));
  if (view.has("idle")) ISTHMUS_TRY(read_list(view, "idle", read_idle, profile.idle));
  if (view.has("weight_count")) {
    ISTHMUS_ASSIGN(const JsonView count, view.object("weight_count"));
    ISTHMUS_ASSIGN(const double layers, count.number("layers", 1, kLargest));
    ISTHMUS_ASSIGN(const double head, count.number("head", 1, kLargest));
    profile.weight_count =
        WeightCount{.layers = static_cast<uint64_t>(layers), .head = static_cast<uint64_t>(head)};
  }
  if (view.has("watts")) {
    ISTHMUS_ASSIGN(const JsonView watts, view.object("watts"));
    ISTHMUS_ASSIGN(const double computing, watts.number("computing", 0, kLargest));
    ISTHMUS_ASSIGN(const double waiting, watts.number("waiting", 0, kLargest));
    profile.watts = Watts{.computing = computing, .waiting = waiting};
  }
  ISTHMUS_TRY(name_file(view, profile.validate()));
  return profile;
}

Result<LinkProfile> read_link(const JsonView& view) {
  ISTHMUS_TRY(check_kind(view, kLinkKind));
  LinkProfile link;
  ISTHMUS_ASSIGN(link.rtt_seconds, view.number("rtt_seconds", 0, kLargest));
  ISTHMUS_ASSIGN(link.rtt_p95_seconds, view.number("rtt_p95_seconds", 0, kLargest));
  ISTHMUS_ASSIGN(link.up_bits_per_second, view.number("up_bits_per_second", 1, kLargest));
  ISTHMUS_ASSIGN(link.down_bits_per_second, view.number("down_bits_per_second", 1, kLargest));
  ISTHMUS_TRY(name_file(view, link.validate()));
  return link;
}

Result<MachineProfile> parse_machine(std::string_view text, std::string_view name) {
  ISTHMUS_ASSIGN(const json document, parse_json(text, name));
  return read_machine(JsonView(document, std::string(name) + ":"));
}

Result<LinkProfile> parse_link(std::string_view text, std::string_view name) {
  ISTHMUS_ASSIGN(const json document, parse_json(text, name));
  return read_link(JsonView(document, std::string(name) + ":"));
}

std::string to_json(const MachineProfile& profile) {
  return to_node(profile).dump(1) + "\n";
}

std::string to_json(const LinkProfile& link) {
  return to_node(link).dump(1) + "\n";
}

}  // namespace isthmus::planner
