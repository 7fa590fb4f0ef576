// This process runs three layers, an isthmus-server runs the others: two turns of one conversation
// over an encrypted connection. The last norm and the head run here, so the server never sees a
// token.
#include <isthmus/edge/device.h>

#include <cstdio>
#include <cstdlib>

namespace {

using namespace isthmus;

Status talk(const char* model, const char* server) {
  ISTHMUS_ASSIGN(edge::Device device, edge::Device::load({.model = model, .cut = 3, .tail = 30}));
  edge::SessionOptions options{.server = server};
  options.max_tokens = 512;
  ISTHMUS_ASSIGN(edge::Session session, device.open_session(options));
  std::printf("connected; the server computes on %s\n", session.server_description().c_str());

  for (const char* question : {"Name three colours.", "Which of them is the sky?"}) {
    std::printf("> %s\n", question);
    ISTHMUS_ASSIGN(const edge::Reply reply,
                   session.say(question, {.max_tokens = 32}, [](std::string_view text) {
                     std::printf("%.*s", static_cast<int>(text.size()), text.data());
                     return true;
                   }));
    std::printf("\n[%zu + %zu tokens in %llu messages, %llu bytes up, %llu bytes down]\n",
                reply.prompt_token_ids.size(), reply.token_ids.size(),
                static_cast<unsigned long long>(reply.steps),
                static_cast<unsigned long long>(reply.bytes_up),
                static_cast<unsigned long long>(reply.bytes_down));
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const char* server = argc == 3 ? argv[2] : std::getenv("ISTHMUS_SERVER");
  if (argc < 2 || argc > 3 || server == nullptr) {
    std::fprintf(stderr, "usage: %s MODEL SERVER, where SERVER is what isthmus-server prints\n",
                 argv[0]);
    return 2;
  }
  if (const Status status = talk(argv[1], server); !status) {
    std::fprintf(stderr, "%s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}
