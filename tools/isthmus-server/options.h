// The command line of isthmus-server.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/server/options.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/engine_flags.h"

namespace isthmus::tools {

struct ServerFlags {
  std::filesystem::path model;
  std::string bind = "127.0.0.1:5755";
  std::string layers;             // "A:B"; empty: all that the file holds
  std::filesystem::path plan;     // of isthmus-plan; empty: what the other flags say
  std::filesystem::path profile;  // of isthmus-plan profile, for clients that plan
  std::string device = "cpu";     // "cpu", "torch" or "cuda[:N]"
  std::string precision;          // empty: the device's default
  EngineFlags engine;             // of --device cpu
  int threads = 0;
  std::filesystem::path home;  // empty: the standard place for keys
  std::string metrics;         // "host:port"; empty: none
  bool allow_any_client = false;
  bool insecure = false;
  bool quiet = false;
  int64_t idle_timeout_s = 600;
  int64_t drain_timeout_s = 30;
  uint32_t kv_memory_mb = 4000;
  std::vector<std::filesystem::path> calibrations;
  std::vector<std::filesystem::path> artefacts;
  server::ServerOptions limits;
};

/// Declares every flag on `app`, bound to `flags`.
void declare(CLI::App& app, ServerFlags& flags);

/// Sets what --plan decides: layers, bits and context. Does nothing without one. \returns the
/// errors of reading plan and model; kModelMismatch when they do not belong together;
/// kInvalidArgument for a plan that needs no server, and of an exact server for one of packed
/// weights.
[[nodiscard]] Status follow_plan(ServerFlags& flags);

/// Refuses values out of range. \throws CLI::ValidationError
void check(ServerFlags& flags);

/// Host and port of "host:port", "[::1]:port" or "*:port". \returns kInvalidArgument
struct BindAddress {
  std::string host;
  uint16_t port = 0;
};
[[nodiscard]] Result<BindAddress> parse_bind(const std::string& text);

}  // namespace isthmus::tools
