#include "report.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/format.h"

namespace isthmus::tools {
namespace {

// Infinity has no place in JSON: null says that nothing finite is promised.
nlohmann::json number_or_null(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

nlohmann::json to_json(const edge::PrivacyReport& report) {
  return {{"mechanism", report.statement.mechanism},
          {"adjacency", report.statement.adjacency},
          {"sensitivity_l2", report.statement.sensitivity_l2},
          {"delta", report.statement.delta},
          {"epsilon_per_row", number_or_null(report.statement.epsilon_per_row)},
          {"rows", report.spent.conversation_rows},
          {"epsilon_conversation", number_or_null(report.spent.conversation_epsilon)},
          {"epsilon_period", number_or_null(report.spent.period_epsilon)},
          {"epsilon_total", number_or_null(report.spent.total_epsilon)},
          {"composition", report.statement.composition}};
}

nlohmann::json to_json(const edge::VerifyReport& report) {
  return {{"compared", report.compared},
          {"other_tokens", report.other_tokens},
          {"wrong_rows", report.wrong_rows},
          {"worst_row_error", number_or_null(report.worst_row_error)},
          {"suspicious", report.is_suspicious()},
          {"problem", report.problem}};
}

std::string verification_text(const edge::VerifyReport& report) {
  std::string text = "no answer has been checked so far";
  if (report.compared > 0) {
    text =
        format("checked %llu answers so far: ", static_cast<unsigned long long>(report.compared));
    const uint64_t differ = report.other_tokens + report.wrong_rows;
    text +=
        differ == 0 ? "all agree" : format("%llu differ", static_cast<unsigned long long>(differ));
  }
  if (report.is_suspicious())
    text += ", more than rounding explains: the server does not compute what it should";
  text += "\n";
  if (!report.problem.empty()) text += "checking ended: " + report.problem + "\n";
  return text;
}

}  // namespace

std::string to_json(const edge::Reply& reply, const RunFigures& run,
                    const std::optional<edge::PrivacyReport>& privacy) {
  nlohmann::json object = {
      {"prompt_token_ids", reply.prompt_token_ids},
      {"token_ids", reply.token_ids},
      {"text", reply.text},
      {"finish_reason", edge::to_string(reply.finish_reason)},
      {"time_to_first_token_s", reply.time_to_first_token_s},
      {"tokens_per_s", reply.tokens_per_s},
      {"bytes_up", reply.bytes_up},
      {"bytes_down", reply.bytes_down},
      {"boundary_bytes_up", reply.boundary_bytes_up},
      {"steps", reply.steps},
      {"released_rows", reply.released_rows},
      {"resumes", reply.resumes},
      {"seed", run.seed},
      {"load_s", run.load_s},
      {"weight_mb", run.weight_mb},
      {"peak_resident_mb", run.peak_resident_mb},
      {"time_s",
       {{"device", reply.time_s.device},
        {"codec", reply.time_s.codec},
        {"wire", reply.time_s.wire},
        {"server", reply.time_s.server}}},
  };
  if (privacy) object["privacy"] = to_json(*privacy);
  if (run.verification) object["verification"] = to_json(*run.verification);
  return object.dump();
}

std::string summary(const edge::Reply& reply, const RunFigures& run) {
  const size_t prompt = reply.prompt_token_ids.size();
  const size_t generated = reply.token_ids.size();
  std::string text =
      format("%zu + %zu tokens, %.1f tokens/s, first token after %.2f s, ended by %s\n", prompt,
             generated, reply.tokens_per_s, reply.time_to_first_token_s,
             std::string(edge::to_string(reply.finish_reason)).c_str());
  text += format("time: device %.2f s, codec %.3f s, wire %.2f s, server %.2f s\n",
                 reply.time_s.device, reply.time_s.codec, reply.time_s.wire, reply.time_s.server);
  if (reply.steps > 0) {
    const auto tokens = static_cast<double>(prompt + generated);
    text += format("bytes per token: %.0f up, %.0f down, in %llu messages\n",
                   static_cast<double>(reply.bytes_up) / tokens,
                   static_cast<double>(reply.bytes_down) / tokens,
                   static_cast<unsigned long long>(reply.steps));
    // The last token of a reply has not gone up yet.
    const double rows = tokens - 1;
    const double boundary = static_cast<double>(reply.boundary_bytes_up) / rows;
    const double raw = 2.0 * run.hidden_size;
    text += format("boundary: %.0f bytes per token; as 16-bit numbers %.0f, %.1f times as many\n",
                   boundary, raw, raw / boundary);
  }
  if (reply.resumes > 0)
    text += format("another server took over %llu times\n",
                   static_cast<unsigned long long>(reply.resumes));
  if (run.verification) text += verification_text(*run.verification);
  return text;
}

std::string spent_text(const edge::PrivacyReport& report, double budget) {
  std::string text = format("epsilon %.4g", report.spent.conversation_epsilon);
  if (std::isfinite(budget)) text += format(" of %.4g", budget);
  return text +
         format(" for %llu rows", static_cast<unsigned long long>(report.spent.conversation_rows));
}

}  // namespace isthmus::tools
