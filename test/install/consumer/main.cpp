// Loads the model named on the command line and answers one question with it. Without an argument
// it shows how a failure arrives.
#include <isthmus/edge/device.h>
#include <cstdio>

int main(int argc, char** argv) {
  const char* model = argc > 1 ? argv[1] : "missing.gguf";
  auto device = isthmus::edge::Device::load({.model = model});
  if (!device) {
    std::printf("%s\n", std::string(to_string(device.error().code)).c_str());
    return 0;
  }
  auto session = device->open_session({});
  if (!session) return 1;
  const auto reply = session->say("Say hello.", {.max_tokens = 8});
  if (!reply) return 1;
  std::printf("generated %zu tokens\n", reply->token_ids.size());
  return 0;
}
