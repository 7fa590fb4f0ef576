// SmolLM2's own vocabulary, read from its GGUF file: token ids and conversations equal to those of
// Hugging Face's tokenizers (tools/refgen/text_goldens.py).
#include <isthmus/model/model_file.h>
#include <isthmus/text/chat.h>
#include <isthmus/text/tokenizer.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/catch.h"

namespace isthmus::text {
namespace {

using test::value_of;
using Ids = std::vector<int32_t>;

nlohmann::json golden(const std::string& name) {
  std::ifstream in(ISTHMUS_TEST_DATA "/text/" + name + ".json");
  REQUIRE(in);
  return nlohmann::json::parse(in);
}

Tokenizer smollm2() {
  const auto file = value_of(model::ModelFile::open(ISTHMUS_TEST_MODEL));
  return value_of(Tokenizer::make(file->tokenizer()));
}

std::vector<ChatMessage> messages_of(const nlohmann::json& json) {
  std::vector<ChatMessage> messages;
  for (const auto& message : json) {
    const std::string role = message.at(0);
    const Role as = role == "system" ? Role::kSystem
                    : role == "user" ? Role::kUser
                                     : Role::kAssistant;
    messages.push_back({as, message.at(1)});
  }
  return messages;
}

TEST_CASE("SmolLM2 gets the reference's ids on every golden string", "[text][model]") {
  const Tokenizer tokenizer = smollm2();
  const auto strings = golden("strings").get<std::vector<std::string>>();
  const nlohmann::json reference = golden("smollm2");
  const auto ids = reference.at("ids").get<std::vector<Ids>>();
  REQUIRE(strings.size() >= 2000);
  REQUIRE(ids.size() == strings.size());
  for (size_t i = 0; i < strings.size(); ++i) {
    CAPTURE(i, strings[i]);
    CHECK(tokenizer.encode(strings[i]) == ids[i]);
  }
  REQUIRE(reference.at("special_ids").size() >= 10);
  for (const auto& item : reference.at("special_ids")) {
    const std::string& text = strings[item.at(0).get<size_t>()];
    CAPTURE(text);
    CHECK(tokenizer.encode(text, {.parse_special = true}) == item.at(1).get<Ids>());
  }
}

TEST_CASE("SmolLM2's conversations are those of its own template", "[text][chat][model]") {
  const Tokenizer tokenizer = smollm2();
  const auto format = value_of(detect_chat_format(tokenizer.spec().chat_template));
  CHECK(format == ChatFormat::kChatMl);
  const auto encoder = value_of(ChatEncoder::make(tokenizer, format));
  for (const auto& item : golden("smollm2").at("chat")) {
    CAPTURE(item.dump());
    const auto messages = messages_of(item.at("messages"));
    const Ids at_once = item.at("ids");
    CHECK(encoder.begin_reply(messages, true) == at_once);

    // Turn by turn: everything up to a reply, the reply as the model would give it, and so on.
    Ids ids;
    std::vector<ChatMessage> turn;
    for (const ChatMessage& message : messages) {
      if (message.role != Role::kAssistant) {
        turn.push_back(message);
        continue;
      }
      for (const Ids& part :
           {encoder.begin_reply(turn, ids.empty()), tokenizer.encode(message.content),
            Ids{tokenizer.spec().eos}, encoder.end_reply(tokenizer.spec().eos)}) {
        ids.insert(ids.end(), part.begin(), part.end());
      }
      turn.clear();
    }
    const Ids last = encoder.begin_reply(turn, ids.empty());
    ids.insert(ids.end(), last.begin(), last.end());
    CHECK(ids == at_once);
  }
}

}  // namespace
}  // namespace isthmus::text
