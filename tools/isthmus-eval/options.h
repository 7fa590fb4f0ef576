// The command line of isthmus-eval.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace isthmus::tools {

struct EvalFlags {
  std::filesystem::path model;
  std::filesystem::path text;
  size_t tokens = 32'768;
  size_t window = 512;
  std::vector<int32_t> cuts;  // empty: the artefacts', or a tenth of the layers
  std::vector<std::string> precisions = {"fine"};  // one, but for --whole
  int threads = 0;
  bool json = false;
  std::filesystem::path csv;

  std::vector<std::string> specs;  // empty: a standard list
  std::filesystem::path svg;
  std::filesystem::path calibration_text;
  size_t calibration_tokens = 16'384;
  std::vector<std::filesystem::path> artefacts;

  bool whole = false;  // engine settings instead of specs: every combination
  std::vector<int32_t> front_bits = {8};
  std::vector<int32_t> back_bits = {8};
  std::vector<int32_t> kv_bits = {16};
};

/// Declares every flag on `app`, bound to `flags`. Parsing refuses values out of range.
void declare(CLI::App& app, EvalFlags& flags);

/// Refuses specs that name a calibration where none is made, several precisions for specs, and bits
/// that `exact` would not heed.
/// \throws CLI::ValidationError
void check(const EvalFlags& flags);

}  // namespace isthmus::tools
