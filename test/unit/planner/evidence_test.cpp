#include <isthmus/planner/evidence.h>

#include <nlohmann/json.hpp>

#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;
using nlohmann::json;

const json kCodecRow = {{"cut", 3}, {"spec", "f16"}, {"change", -0.001}, {"kl_nats", 0.1}};
const json kWeightRow = {{"cut", 3},       {"precision", "fine"}, {"front_bits", 8},
                         {"back_bits", 4}, {"kv_bits", 16},       {"change", 0.01},
                         {"top1_flips", 0}};
const json kAttackRow = {{"cut", 3},
                         {"spec", "f16"},
                         {"attack", "ridge"},
                         {"top1_interval", {0.5, 0.6}},
                         {"epsilon_per_row", nullptr},
                         {"epsilon_per_prompt", 12.5},
                         {"prompt_rows", 512}};

TEST_CASE("rows of evaluations and audits are told apart", "[planner][evidence]") {
  Evidence evidence;
  REQUIRE(add_evidence(json{kCodecRow, kWeightRow}.dump(), "eval.json", evidence));
  REQUIRE(add_evidence(json{kAttackRow}.dump(), "audit.json", evidence));
  CHECK(evidence.codecs == std::vector<CodecQuality>{{3, "f16", -0.001}});
  CHECK(evidence.weights == std::vector<WeightQuality>{{3, "fine", 8, 4, 16, 0.01}});
  CHECK(evidence.attacks ==
        std::vector<AttackFinding>{{3, "f16", "ridge", 0.6, std::nullopt, 12.5, 512}});
  json older = kAttackRow;
  older.erase("prompt_rows");
  REQUIRE(add_evidence(json{older}.dump(), "audit.json", evidence));
  CHECK(evidence.attacks.back().prompt_rows == 0);
}

TEST_CASE("a broken row is named, and nothing of its file is kept", "[planner][evidence]") {
  const auto refused = [](const json& row, const std::string& field) {
    Evidence evidence;
    const Status added = add_evidence(json{kCodecRow, row}.dump(), "audit.json", evidence);
    CAPTURE(row.dump());
    REQUIRE_FALSE(added);
    CAPTURE(added.error().message);
    CHECK(added.error().code == ErrorCode::kCorrupt);
    CHECK(added.error().message.starts_with("planner: audit.json: row 1"));
    CHECK(added.error().message.find(field) != std::string::npos);
    CHECK(evidence == Evidence{});
  };
  refused(json::object(), "is no row");
  refused(7, "");
  for (const json& good : {kCodecRow, kWeightRow, kAttackRow}) {
    for (const char* key : {"cut", "change", "precision", "kv_bits", "top1_interval"}) {
      if (!good.contains(key)) continue;
      json row = good;
      row.erase(key);
      refused(row, key);
      row[key] = json::object();
      refused(row, key);
    }
  }
  json row = kAttackRow;
  row["top1_interval"] = {0.5};
  refused(row, "top1_interval");
  row["top1_interval"] = {0.5, 1.5};
  refused(row, "top1_interval");
  row = kAttackRow;
  row["epsilon_per_row"] = -1;
  refused(row, "epsilon_per_row");
  row = kAttackRow;
  row["prompt_rows"] = -1;
  refused(row, "prompt_rows");
  row = kCodecRow;
  row["cut"] = -1;
  refused(row, "cut");
  row["cut"] = 1.5;
  refused(row, "cut");
}

TEST_CASE("what is no list is refused", "[planner][evidence]") {
  Evidence evidence;
  for (const char* text : {"{}", "", "[1", "3"}) CHECK_FALSE(add_evidence(text, "x", evidence));
}

}  // namespace
}  // namespace isthmus
