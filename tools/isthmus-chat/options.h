// The command line of isthmus-chat.
#pragma once

#include <isthmus/artefact/artefact.h>
#include <isthmus/core/error.h>
#include <isthmus/edge/device.h>
#include <isthmus/planner/plan_file.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/engine_flags.h"
#include "plan_follower.h"

namespace isthmus::tools {

struct ChatFlags {
  std::filesystem::path model;
  std::vector<std::string> servers;  // the first is asked first
  bool local = false;
  PlanFlags plan;
  std::optional<int32_t> cut;
  std::optional<int32_t> tail;
  std::optional<std::string> prompt;  // absent: interactive
  std::string system;
  std::string chat_format;  // empty: as the model's template
  bool raw = false;
  bool json = false;
  int threads = 0;
  EngineFlags engine;
  std::string codec;       // empty: the first artefact's, or edge::default_codec
  std::string codec_down;  // empty: see edge::SessionOptions
  std::string codec_clean = edge::default_codec().to_string();
  std::vector<std::filesystem::path> calibrations;
  std::vector<std::filesystem::path> artefacts;
  std::optional<double> budget;         // epsilon of the conversation
  std::optional<double> period_budget;  // of 30 days
  double delta = 1e-5;
  int32_t context = 2048;
  edge::VerifyOptions verify;
  double timeout_s = 60;
  std::filesystem::path home;
  bool insecure = false;
  std::optional<uint64_t> seed;  // absent: a new one each time
  edge::GenerateOptions generate;
};

/// Declares every flag on `app`, bound to `flags`. Parsing refuses values out of range.
void declare(CLI::App& app, ChatFlags& flags);

/// Refuses flags that contradict each other or are out of range. \throws CLI::ParseError
void check(const ChatFlags& flags);

/// What stands in files that the flags name.
struct ChatFiles {
  std::optional<planner::PlanFile> plan;
  artefact::Artefacts artefacts;
};
/// \returns the errors of reading them.
[[nodiscard]] Result<ChatFiles> read_files(const ChatFlags& flags);

/// What the flags mean for the library. \returns kInvalidArgument, and the errors of opening the
/// model and the keys.
[[nodiscard]] Result<edge::DeviceOptions> device_options(const ChatFlags& flags,
                                                         const ChatFiles& files);
[[nodiscard]] Result<edge::SessionOptions> session_options(const ChatFlags& flags,
                                                           const ChatFiles& files);

}  // namespace isthmus::tools
