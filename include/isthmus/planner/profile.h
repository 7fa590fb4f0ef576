// Measured costs of one machine with one model, and of a link. JSON files; every number is checked
// when one is read.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::planner {

/// Which model was measured. Profiles and plans are only used together when they agree; evidence
/// does not name its model: who gives it answers for that.
struct ModelShape {
  std::string architecture;
  int32_t layer_count = 0;  ///< L
  int32_t hidden_size = 0;  ///< D
  int32_t vocab_size = 0;   ///< V
  friend bool operator==(const ModelShape&, const ModelShape&) = default;
};

/// Seconds of one engine call by how many layers it runs and how many tokens it is given, behind no
/// others. Between the measured points it is linear; outside, the outermost pieces go on.
struct TimeTable {
  std::vector<double> layers;   ///< increasing, from 0 (the call itself, and the embedding) to L
  std::vector<double> tokens;   ///< increasing, from 1
  std::vector<double> seconds;  ///< [layers, tokens], row after row

  /// \returns at least 0.
  [[nodiscard]] double at(double layer_count, double token_count) const;
  friend bool operator==(const TimeTable&, const TimeTable&) = default;
};

/// What packed weights cost at one precision.
struct WeightCost {
  int32_t bits = 8;                   ///< most bits of a weight's code
  std::vector<uint64_t> layer_bytes;  ///< [L]
  uint64_t head_bytes = 0;            ///< final norm and LM head
  double head_seconds = 0;            ///< of one row, the choice of a token included
  TimeTable time;
  friend bool operator==(const WeightCost&, const WeightCost&) = default;
};

/// How many numbers a model's matrices hold: each is multiplied once for every token.
struct WeightCount {
  uint64_t layers = 0;  ///< of all of them together
  uint64_t head = 0;
  friend bool operator==(const WeightCount&, const WeightCount&) = default;
};

/// What keys and values cost at one precision.
struct KvCost {
  int32_t bits = 16;
  double bytes_per_token_and_layer = 0;
  double seconds_per_pair_and_layer = 0;  ///< for a token to look back at one more position
  friend bool operator==(const KvCost&, const KvCost&) = default;
};

/// A cost that grows with the rows of a message.
struct Affine {
  double fixed = 0;
  double per_row = 0;
  [[nodiscard]] double at(double rows) const { return fixed + per_row * rows; }
  friend bool operator==(const Affine&, const Affine&) = default;
};

/// Payload of messages that cross at one cut.
struct MessageSize {
  int32_t cut = 0;
  Affine bytes;
  friend bool operator==(const MessageSize&, const MessageSize&) = default;
};

/// What a codec costs: seconds of one thread, and bytes. Between measured cuts, bytes are linear.
struct CodecCost {
  std::string spec;
  Affine encode_seconds;
  Affine decode_seconds;
  std::vector<MessageSize> sizes;  ///< increasing cuts, at least one
  /// Of an artefact: rows cross at this cut alone, and only up.
  std::optional<int32_t> made_for_cut;
  bool up_only = false;  ///< it has a mechanism, which is for what a device sends

  /// Whether rows may come back by it.
  [[nodiscard]] bool may_come_down() const { return !up_only && !made_for_cut; }
  /// Whether rows may cross at `cut` on their way up.
  [[nodiscard]] bool crosses_at(int32_t cut) const { return made_for_cut.value_or(cut) == cut; }
  [[nodiscard]] double bytes(int32_t cut, double rows) const;
  friend bool operator==(const CodecCost&, const CodecCost&) = default;
};

/// How a decoded token's time changes when the machine has waited before it: caches hold what other
/// programs do, cores sleep.
struct IdleEffect {
  double seconds = 0;  ///< 0: none at all, as in a loop that does nothing else
  double factor = 1;   ///< on the times of `MachineProfile`
  friend bool operator==(const IdleEffect&, const IdleEffect&) = default;
};

/// Power drawn by a machine, for energy.
struct Watts {
  double computing = 0;
  double waiting = 0;
  friend bool operator==(const Watts&, const Watts&) = default;
};

/// One machine with one model at one engine precision and thread count.
struct MachineProfile {
  std::string machine;    ///< for people
  std::string precision;  ///< of the engine: "fine", "fast", "bf16", ...
  int32_t threads = 1;
  ModelShape model;
  std::vector<WeightCost> weights;  ///< one for each precision, at least one
  std::vector<KvCost> kv;           ///< likewise
  std::optional<WeightCount> weight_count;
  std::vector<CodecCost> codecs;
  double base_bytes = 0;             ///< what the program takes beside weights and caches
  double free_bytes = 0;             ///< memory that is free for all of it
  double read_bytes_per_second = 0;  ///< memory bandwidth; 0: not measured
  double spread = 0;  ///< of repeated measurements: middle half over median, mean of all points
  std::optional<Watts> watts;
  std::vector<IdleEffect> idle;  ///< increasing seconds; empty: not measured, taken for 1

  /// On straight lines between the points, the outer ones beyond them.
  [[nodiscard]] double after_idle(double seconds) const;
  [[nodiscard]] const WeightCost* find_weights(int32_t bits) const;
  [[nodiscard]] const KvCost* find_kv(int32_t bits) const;
  [[nodiscard]] const CodecCost* find_codec(std::string_view spec) const;

  /// \returns kCorrupt naming the first field that is out of range.
  [[nodiscard]] Status validate() const;
  friend bool operator==(const MachineProfile&, const MachineProfile&) = default;
};

/// The way between two machines, as an encrypted message sees it.
struct LinkProfile {
  double rtt_seconds = 0;      ///< median round trip of an empty message, both programs included
  double rtt_p95_seconds = 0;  ///< 95 of 100 take no longer
  double up_bits_per_second = 0;
  double down_bits_per_second = 0;

  /// \returns kCorrupt naming the field.
  [[nodiscard]] Status validate() const;
  friend bool operator==(const LinkProfile&, const LinkProfile&) = default;
};

/// Reads a profile from JSON that may come from anyone. `name` is what errors call it.
/// \returns kTooLarge above 16 MiB, kCorrupt naming the field.
[[nodiscard]] Result<MachineProfile> parse_machine(std::string_view json, std::string_view name);
[[nodiscard]] Result<LinkProfile> parse_link(std::string_view json, std::string_view name);

/// Parses back to the same profile, bit for bit.
[[nodiscard]] std::string to_json(const MachineProfile& profile);
[[nodiscard]] std::string to_json(const LinkProfile& link);

/// A machine that one does not have, by what is known of it.
struct MachineDescription {
  std::string machine;
  double read_bytes_per_second = 0;    ///< memory bandwidth: bounds a decoded token
  double operations_per_second = 0;    ///< multiplications and additions: bounds a prompt
  double call_seconds = 0;             ///< of an engine call beside its layers
  double codec_seconds_per_value = 0;  ///< to encode or to decode one coordinate
  double free_bytes = 0;
  double base_bytes = 0;
};

/// A profile by the roofline: a call takes the longer of reading its weights once and of computing
/// with them (2 operations per weight and token; where `measured` does not count its weights, as
/// many as codes of the most bits fit into its bytes). Sizes of weights, caches and messages are
/// those of `measured`, a profile of the same model on any machine. \returns kInvalidArgument
/// naming a figure that is not above 0.
[[nodiscard]] Result<MachineProfile> derive_profile(const MachineProfile& measured,
                                                    const MachineDescription& description);

}  // namespace isthmus::planner
