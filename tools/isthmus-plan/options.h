// The command line of isthmus-plan.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/problem.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/engine_flags.h"

namespace isthmus::tools {

/// isthmus-plan profile
struct ProfileFlags {
  std::filesystem::path model;
  EngineFlags engine;
  std::vector<int32_t> weight_bits = {8, 4};
  std::vector<int32_t> kv_bits = {16, 8};
  std::vector<std::string> specs = {"f32", "f16", "split:4|rotate|int4|rans",
                                    "split:x16|trellis:0.3|rans"};
  std::vector<std::filesystem::path> calibrations;
  std::vector<std::filesystem::path> artefacts;
  std::filesystem::path text;  // empty: a built-in one
  int threads = 0;
  int repetitions = 15;
  double pause_ms = 2;
  double watts_computing = 0;  // 0: unknown
  double watts_waiting = 0;
  std::filesystem::path output;
};

/// A machine that is not at hand, for isthmus-plan derive.
struct DeriveFlags {
  std::filesystem::path profile;  // of any machine with the same model
  planner::MachineDescription machine;
  double read_gb_s = 0;
  double gop_s = 0;
  double call_us = 20;
  double codec_ns = 20;
  double free_mb = 0;
  double base_mb = 12;
  std::filesystem::path output;

  /// In the units of MachineDescription.
  [[nodiscard]] planner::MachineDescription description() const;
};

/// A server to ask, for isthmus-plan link and isthmus-plan server.
struct ServerFlags {
  std::string server;
  std::filesystem::path home;
  bool insecure = false;
  double timeout_s = 5;
  int probes = 50;
  std::filesystem::path output;
};

/// isthmus-plan alone
struct PlanFlags {
  std::filesystem::path device;
  std::filesystem::path server;
  std::filesystem::path link;
  std::vector<std::filesystem::path> evidence;
  planner::Workload workload;
  planner::Choices choices;
  std::string objective = "token";
  std::vector<std::string> limits;  // "device_memory=40MB"
  std::vector<std::string> axes = {"token", "device_memory"};
  bool json = false;
  std::filesystem::path output;
  std::filesystem::path csv;
  std::filesystem::path html;
};

struct Flags {
  ProfileFlags profile;
  DeriveFlags derive;
  ServerFlags server;
  PlanFlags plan;
};

/// Declares everything on `app`; `profile`, `derive`, `link` and `server` are its
/// subcommands.
void declare(CLI::App& app, Flags& flags);

/// "device_memory=40MB", "token=80ms", "context=2048": a limit in the metric's own unit, or in one
/// of the same kind that is named (kB, MB, GB; ms, s; %). \returns kInvalidArgument
[[nodiscard]] Result<planner::Constraint> parse_limit(const std::string& text);

/// \returns the errors of reading and of planner::parse_machine.
[[nodiscard]] Result<planner::MachineProfile> read_machine(const std::filesystem::path& path);

/// The question that the flags and the files they name put. \returns also the errors of reading and
/// those of codec::CodecSpec::parse.
[[nodiscard]] Result<planner::Problem> read_problem(const PlanFlags& flags);

}  // namespace isthmus::tools
