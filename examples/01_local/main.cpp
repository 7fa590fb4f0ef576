// The whole model on this device: load it, ask, and print the answer as it comes.
#include <isthmus/edge/device.h>

#include <cstdio>

int main(int argc, char** argv) {
  using namespace isthmus;
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]);
    return 2;
  }
  // No cut: nothing leaves the device.
  auto device = edge::Device::load({.model = argv[1]});
  if (!device) {
    std::fprintf(stderr, "%s\n", device.error().message.c_str());
    return 1;
  }
  auto session = device->open_session({.max_tokens = 512});
  if (!session) {
    std::fprintf(stderr, "%s\n", session.error().message.c_str());
    return 1;
  }
  const auto reply = session->say(argv[2], {.max_tokens = 48}, [](std::string_view text) {
    std::printf("%.*s", static_cast<int>(text.size()), text.data());
    std::fflush(stdout);
    return true;  // false would stop the reply here
  });
  if (!reply) {
    std::fprintf(stderr, "%s\n", reply.error().message.c_str());
    return 1;
  }
  std::printf("\n[%zu prompt tokens, %zu generated, ended by %s]\n", reply->prompt_token_ids.size(),
              reply->token_ids.size(), std::string(edge::to_string(reply->finish_reason)).c_str());
  return 0;
}
