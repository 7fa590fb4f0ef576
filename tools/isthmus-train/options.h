// Command-line options of isthmus-train.
#pragma once

#include <isthmus/train/fit.h>
#include <isthmus/train/trainer.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::tools {

struct TrainFlags {
  std::filesystem::path model;
  std::vector<std::filesystem::path> text;
  double held_out = 0.05;
  std::string codec = "clip:max=*|binomial:4:mu=52";
  double clip_quantile = 0.98;
  size_t dims = 128;
  std::filesystem::path from;
  size_t start_tokens = 16'384;
  size_t soft_prompt = 0;
  std::string soft_prompt_text =
      "The words that follow arrived over a noisy line. Read them for what they probably were.";
  size_t adapter_rank = 0;
  int32_t adapter_layers = 4;
  std::vector<std::string> train;
  std::vector<double> prefix;
  std::optional<int64_t> warm_up;
  train::TrainOptions options;
  train::FitOptions fit;
  std::filesystem::path out;
  std::filesystem::path device_part;
  std::filesystem::path server_part;
  std::filesystem::path log;
  std::filesystem::path svg;
  std::string command;  ///< as it can be typed again
};

void declare(CLI::App& app, TrainFlags& flags);
/// Fills `options` from the flags. \throws CLI::ValidationError.
void check(TrainFlags& flags);

}  // namespace isthmus::tools
