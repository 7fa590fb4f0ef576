// Asks a question of a model whose first layers run here and whose others run on a server.
#include <isthmus/edge/device.h>

#include <cstdio>

int main(int argc, char** argv) {
  using namespace isthmus;
  if (argc != 4) return 2;
  const auto failed = [](const Error& error) {
    std::fprintf(stderr, "%s\n", error.message.c_str());
    return 1;
  };
  auto device = edge::Device::load({.model = argv[1], .cut = 3});  // layers [0, 3) run here
  if (!device) return failed(device.error());
  auto session = device->open_session({.server = argv[2]});  // the others run there
  if (!session) return failed(session.error());
  const auto reply = session->say(argv[3], {.max_tokens = 64}, [](std::string_view text) {
    std::printf("%.*s", static_cast<int>(text.size()), text.data());
    return std::fflush(stdout) == 0;  // false would end the reply
  });
  if (!reply) return failed(reply.error());
  std::printf("\n%zu tokens\n", reply->token_ids.size());
  return 0;
}
