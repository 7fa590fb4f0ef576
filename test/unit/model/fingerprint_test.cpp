#include <isthmus/model/fingerprint.h>

#include <fstream>
#include <set>
#include <string>

#include "support/catch.h"
#include "support/gguf_writer.h"
#include "support/temp_folder.h"

namespace isthmus::model {
namespace {

using test::GgufFile;
using test::tiny_gguf;
using test::value_of;

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

Result<std::string> fingerprint_of(const std::filesystem::path& path, size_t threads = 2) {
  const auto file = value_of(ModelFile::open(path));
  ThreadPool pool(threads);
  ISTHMUS_ASSIGN(const Fingerprint print, fingerprint(*file, pool));
  return print.to_string();
}

std::string fingerprint_of(const GgufFile& file) {
  const test::TempFolder folder;
  write(folder.path() / "m.gguf", file.bytes());
  return value_of(fingerprint_of(folder.path() / "m.gguf"));
}

GgufFile untied() {
  GgufFile file = tiny_gguf();
  file.add_tensor("output.weight", {6, 8});
  return file;
}

TEST_CASE("a fingerprint is the one that another implementation computes", "[model][fingerprint]") {
  // tools/refgen/fingerprint.py, of the same file.
  CHECK(fingerprint_of(tiny_gguf()) ==
        "d05f64f15b899d710c5ed8a69b04347ddb843b076f95a29a5e95a857db4fa4b6");
}

TEST_CASE("every tensor's name, type, shape and bytes count", "[model][fingerprint]") {
  const GgufFile plain = untied();
  std::set<std::string> seen = {fingerprint_of(plain)};
  for (size_t i = 0; i < plain.tensors.size(); ++i) {
    CAPTURE(plain.tensors[i].name);
    GgufFile changed = plain;
    changed.tensors[i].data.back() = static_cast<char>(changed.tensors[i].data.back() ^ 1);
    CHECK(seen.insert(fingerprint_of(changed)).second);
  }
  // As many bytes in another shape, and the same bytes under each other's names.
  GgufFile reshaped = plain;
  std::swap(reshaped.tensor("blk.0.ffn_up.weight").dims[0],
            reshaped.tensor("blk.0.ffn_up.weight").dims[1]);
  CHECK(seen.insert(fingerprint_of(reshaped)).second);
  GgufFile marked = plain;
  marked.tensor("blk.0.attn_norm.weight").data[0] ^= 2;
  CHECK(seen.insert(fingerprint_of(marked)).second);
  for (const char* other : {"blk.0.ffn_norm.weight", "blk.1.attn_norm.weight"}) {
    CAPTURE(other);
    GgufFile swapped = marked;
    std::swap(swapped.tensor("blk.0.attn_norm.weight").data, swapped.tensor(other).data);
    CHECK(seen.insert(fingerprint_of(swapped)).second);
  }
}

TEST_CASE("what the metadata say of the arithmetic counts", "[model][fingerprint]") {
  std::set<std::string> seen = {fingerprint_of(untied())};
  const std::pair<const char*, test::GgufValue> changes[] = {
      {"llama.attention.layer_norm_rms_epsilon", 1e-6F},
      {"llama.rope.freq_base", 501.0F},
      {"llama.attention.head_count", 4U},  // of half the size
      {"llama.rope.scaling.type", "linear"},
  };
  for (const auto& [key, value] : changes) {
    CAPTURE(key);
    GgufFile changed = untied();
    changed.set(key, value);
    if (key == std::string("llama.rope.scaling.type"))
      changed.set("llama.rope.scaling.factor", 2.0F);
    CHECK(seen.insert(fingerprint_of(changed)).second);
  }
}

TEST_CASE("where tensors lie, threads and other metadata do not count", "[model][fingerprint]") {
  const std::string expected = fingerprint_of(untied());
  GgufFile shuffled = untied();
  std::reverse(shuffled.tensors.begin(), shuffled.tensors.end());
  shuffled.alignment = 256;
  shuffled.set("general.alignment", 256U);
  shuffled.set("general.name", "another");
  shuffled.set("llama.context_length", 77U);
  CHECK(fingerprint_of(shuffled) == expected);
  const test::TempFolder folder;
  write(folder.path() / "m.gguf", untied().bytes());
  CHECK(value_of(fingerprint_of(folder.path() / "m.gguf", 1)) == expected);
}

struct Cut {
  explicit Cut(const Part& part, const GgufFile& model = untied()) {
    write(source, model.bytes());
    value_of(write_slice(source, part, slice));
  }
  test::TempFolder folder;
  std::filesystem::path source = folder.path() / "whole.gguf";
  std::filesystem::path slice = folder.path() / "slice.gguf";
};

TEST_CASE("every slice has the fingerprint of its model", "[model][fingerprint]") {
  const bool tied = GENERATE(false, true);
  const GgufFile model = tied ? tiny_gguf() : untied();
  const Part part =
      GENERATE(Part{.layers = {{0, 1}}, .embedding = true}, Part{.layers = {{1, 2}}, .head = true},
               Part{.layers = {{0, 2}}}, Part{.head = true}, Part{.embedding = true});
  const Cut cut(part, model);
  CHECK(value_of(fingerprint_of(cut.slice)) == fingerprint_of(model));
  if (part.layers != std::vector<std::pair<int32_t, int32_t>>{{0, 2}}) return;
  const auto smaller = cut.folder.path() / "smaller.gguf";
  value_of(write_slice(cut.slice, {.layers = {{1, 2}}}, smaller));
  CHECK(value_of(fingerprint_of(smaller)) == fingerprint_of(model));
}

TEST_CASE("a slice whose weights were changed is found out, and not cut again",
          "[model][fingerprint]") {
  const Cut cut({.layers = {{1, 2}}, .head = true});
  std::fstream file(cut.slice, std::ios::in | std::ios::out | std::ios::binary | std::ios::ate);
  file.seekp(-8, std::ios::end);
  file.put('!');
  file.close();
  const auto changed = fingerprint_of(cut.slice);
  CHECK_FAILS_WITH(changed, ErrorCode::kCorrupt);
  CHECK(changed.error().message.find("head is not the one it was cut from") != std::string::npos);
  CHECK_FAILS_WITH(write_slice(cut.slice, {.head = true}, cut.folder.path() / "again.gguf"),
                   ErrorCode::kCorrupt);
}

TEST_CASE("digests of other parts are believed, and change the fingerprint",
          "[model][fingerprint]") {
  // They say which model a slice claims to be of: only who has the same whole agrees.
  GgufFile file = tiny_gguf();
  file.set("isthmus.slice.layers", std::vector<int32_t>{});
  file.set("isthmus.slice.embedding", false);
  file.set("isthmus.slice.head", false);
  file.set("isthmus.slice.vocab_size", 6U);
  file.tensors.clear();
  CHECK_FAILS_WITH(
      [&] {
        const test::TempFolder folder;
        write(folder.path() / "m.gguf", file.bytes());
        return fingerprint_of(folder.path() / "m.gguf");
      }(),
      ErrorCode::kUnsupported);  // an old slice has none
  const auto with_digests = [&](size_t bytes, char value) {
    GgufFile made = file;
    made.set_raw("isthmus.slice.digests", 9,
                 test::little_endian(uint32_t{0}) + test::little_endian(uint64_t{bytes}) +
                     std::string(bytes, value));
    return made;
  };
  CHECK(fingerprint_of(with_digests(5 * 32, 'a')) != fingerprint_of(with_digests(5 * 32, 'b')));
  for (const size_t bytes : {1, 32, 4 * 32, 5 * 32 + 1, 6 * 32}) {
    CAPTURE(bytes);
    const test::TempFolder folder;
    write(folder.path() / "m.gguf", with_digests(bytes, 'a').bytes());
    CHECK_FAILS_WITH(ModelFile::open(folder.path() / "m.gguf"), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace isthmus::model
