#include "options.h"

#include <isthmus/core/thread_pool.h>

namespace isthmus::tools {

void declare(CLI::App& app, EvalFlags& flags) {
  app.add_option("--model", flags.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--text", flags.text, "UTF-8 text to read")->required();
  app.add_option("--tokens", flags.tokens, "how much of it, rounded down to whole windows")
      ->check(CLI::Range(size_t{2}, size_t{1} << 30))
      ->capture_default_str();
  app.add_option("--window", flags.window, "tokens read together, each window from position 0")
      ->check(CLI::Range(size_t{2}, size_t{1} << 20))
      ->capture_default_str();
  app.add_option("--cuts", flags.cuts,
                 "layers of the front, separated by commas; a tenth of the model's when absent")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  app.add_option("--threads", flags.threads, "CPU threads; 0: one per hardware thread")
      ->check(CLI::Range(0, static_cast<int>(ThreadPool::kMaxThreads)))
      ->capture_default_str();
  app.add_option("--csv", flags.csv, "file to write the table to");
  app.add_flag("--json", flags.json, "print a list with an object for each row of the table");

  auto* whole = app.add_flag("--whole", flags.whole,
                             "evaluate settings of the fast engine, not specs, beside the exact "
                             "engine: every combination of the bits below");
  const auto add_bits = [&](const char* name, std::vector<int32_t>& bits, const char* text,
                            const CLI::Validator& known) {
    app.add_option(name, bits, text)
        ->delimiter(',')
        ->check(known)
        ->needs(whole)
        ->capture_default_str();
  };
  add_bits("--front-bits", flags.front_bits,
           "most bits of a weight in front of the cut: 8, 4 or 8,4", CLI::IsMember({8, 4}));
  add_bits("--back-bits", flags.back_bits,
           "most bits of a weight behind the cut, head included: 8, 4 or 8,4",
           CLI::IsMember({8, 4}));
  add_bits("--kv-bits", flags.kv_bits, "of stored keys and values: 16, 8 or 16,8",
           CLI::IsMember({16, 8}));
}

}  // namespace isthmus::tools
