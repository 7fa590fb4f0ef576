// Two processes and a real model: wherever it is cut, the raw boundary changes no token.
#include <isthmus/edge/device.h>

#include "server_process.h"

namespace isthmus {
namespace {

constexpr int32_t kTokens = 64;
const std::string kQuestion = "Explain in a few sentences why the sky is blue.";

std::vector<int32_t> greedy_tokens(const edge::DeviceOptions& placement,
                                   const edge::SessionOptions& options) {
  edge::Device device = test::value_of(edge::Device::load(placement));
  edge::Session session = test::value_of(device.open_session(options));
  const edge::Reply reply = test::value_of(session.say(kQuestion, {.max_tokens = kTokens}));
  return reply.token_ids;
}

TEST_CASE(
    "64 greedy tokens across two processes equal the unsplit model's, for every cut and several "
    "tails",
    "[system][split]") {
  test::ServerProcess server;
  server.enrol_client();
  edge::SessionOptions options{
      .server = server.address(), .keys = server.client_keys(), .max_tokens = 256};
  options.codec = {codec::Format::kF32};

  const std::vector<int32_t> whole = greedy_tokens({.model = test::kModel}, options);
  REQUIRE(whole.size() == kTokens);
  const int32_t layers =
      test::value_of(edge::Device::load({.model = test::kModel})).config().layer_count;

  for (int32_t cut = 0; cut <= layers; ++cut) {
    CAPTURE(cut);
    CHECK(greedy_tokens({.model = test::kModel, .cut = cut}, options) == whole);
  }
  const std::vector<std::pair<int32_t, int32_t>> with_tail = {
      {0, layers}, {0, 0}, {1, layers - 1}, {3, layers}, {8, 20}, {15, 15}, {layers, layers}};
  for (const auto& [cut, tail] : with_tail) {
    CAPTURE(cut, tail);
    CHECK(greedy_tokens({.model = test::kModel, .cut = cut, .tail = tail}, options) == whole);
  }
}

}  // namespace
}  // namespace isthmus
