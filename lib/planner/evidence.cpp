#include <isthmus/planner/evidence.h>

#include "evidence_json.h"
#include "json_view.h"

namespace isthmus::planner {
namespace {

constexpr int32_t kMostLayers = 4096;
constexpr double kMostLoss = 1e12;
constexpr double kMostEpsilon = 1e12;
constexpr int32_t kMostRows = 1 << 30;

Result<CodecQuality> read_codec(const JsonView& row) {
  CodecQuality quality;
  ISTHMUS_ASSIGN(quality.cut, row.integer("cut", 0, kMostLayers));
  ISTHMUS_ASSIGN(quality.spec, row.text("spec"));
  ISTHMUS_ASSIGN(quality.change, row.number("change", -1, kMostLoss));
  return quality;
}

Result<WeightQuality> read_weights(const JsonView& row) {
  WeightQuality quality;
  ISTHMUS_ASSIGN(quality.cut, row.integer("cut", 0, kMostLayers));
  ISTHMUS_ASSIGN(quality.precision, row.text("precision"));
  ISTHMUS_ASSIGN(quality.front_bits, row.integer("front_bits", 1, 32));
  ISTHMUS_ASSIGN(quality.back_bits, row.integer("back_bits", 1, 32));
  ISTHMUS_ASSIGN(quality.kv_bits, row.integer("kv_bits", 1, 32));
  ISTHMUS_ASSIGN(quality.change, row.number("change", -1, kMostLoss));
  return quality;
}

// A null is an epsilon that is not finite, or a spec without a mechanism.
Result<std::optional<double>> read_epsilon(const JsonView& row, const char* key) {
  if (!row.has(key)) return std::optional<double>();
  ISTHMUS_ASSIGN(const double epsilon, row.number(key, 0, kMostEpsilon));
  return std::optional(epsilon);
}

Result<AttackFinding> read_attack(const JsonView& row) {
  AttackFinding finding;
  ISTHMUS_ASSIGN(finding.cut, row.integer("cut", 0, kMostLayers));
  ISTHMUS_ASSIGN(finding.spec, row.text("spec"));
  ISTHMUS_ASSIGN(finding.attack, row.text("attack"));
  ISTHMUS_ASSIGN(const std::vector<double> interval, row.numbers("top1_interval", 0, 1));
  if (interval.size() != 2) return row.error("has a 'top1_interval' without two ends");
  finding.top1_high = interval[1];
  ISTHMUS_ASSIGN(finding.epsilon_per_row, read_epsilon(row, "epsilon_per_row"));
  ISTHMUS_ASSIGN(finding.epsilon_per_prompt, read_epsilon(row, "epsilon_per_prompt"));
  if (row.has("prompt_rows")) {
    ISTHMUS_ASSIGN(finding.prompt_rows, row.integer("prompt_rows", 0, kMostRows));
  }
  return finding;
}

}  // namespace

nlohmann::json to_node(const Evidence& evidence) {
  using nlohmann::json;
  json rows = json::array();
  for (const CodecQuality& row : evidence.codecs)
    rows.push_back({{"cut", row.cut}, {"spec", row.spec}, {"change", row.change}});
  for (const WeightQuality& row : evidence.weights) {
    rows.push_back({{"cut", row.cut},
                    {"precision", row.precision},
                    {"front_bits", row.front_bits},
                    {"back_bits", row.back_bits},
                    {"kv_bits", row.kv_bits},
                    {"change", row.change}});
  }
  const auto epsilon = [](const std::optional<double>& value) {
    return value ? json(*value) : json();
  };
  for (const AttackFinding& row : evidence.attacks) {
    rows.push_back({{"cut", row.cut},
                    {"spec", row.spec},
                    {"attack", row.attack},
                    {"top1_interval", {0, row.top1_high}},
                    {"epsilon_per_row", epsilon(row.epsilon_per_row)},
                    {"epsilon_per_prompt", epsilon(row.epsilon_per_prompt)},
                    {"prompt_rows", row.prompt_rows}});
  }
  return rows;
}

Status add_row(const JsonView& row, Evidence& evidence) {
  if (row.has("attack")) {
    ISTHMUS_ASSIGN(AttackFinding finding, read_attack(row));
    evidence.attacks.push_back(std::move(finding));
  } else if (row.has("spec")) {
    ISTHMUS_ASSIGN(CodecQuality quality, read_codec(row));
    evidence.codecs.push_back(std::move(quality));
  } else if (row.has("front_bits")) {
    ISTHMUS_ASSIGN(WeightQuality quality, read_weights(row));
    evidence.weights.push_back(std::move(quality));
  } else {
    return row.error("is no row of isthmus-eval or isthmus-audit");
  }
  return {};
}

Status add_evidence(std::string_view text, std::string_view name, Evidence& evidence) {
  ISTHMUS_ASSIGN(const nlohmann::json document, parse_json(text, name));
  const std::string file(name);
  if (!document.is_array()) return JsonView(document, file).error("is not a list");
  Evidence added = evidence;
  for (size_t i = 0; i < document.size(); ++i) {
    const JsonView row(document[i], file + ": row " + std::to_string(i));
    ISTHMUS_TRY(add_row(row, added));
  }
  evidence = std::move(added);
  return {};
}

}  // namespace isthmus::planner
