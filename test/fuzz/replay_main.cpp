// Runs a fuzz target over every file of a corpus folder, and over every prefix-cut and byte-flipped
// variant of each small one, so that the corpus is an ordinary regression test without libFuzzer.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMutatedBytes = 600;  // files up to this length are also cut and flipped

void run(const std::vector<uint8_t>& bytes) {
  // A copy of exactly this length, so that AddressSanitizer sees a read behind the end.
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

size_t run_variants(std::vector<uint8_t> bytes) {
  size_t runs = 0;
  for (size_t length = 0; length < bytes.size(); ++length, ++runs) {
    run({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)});
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const uint8_t mask : std::initializer_list<uint8_t>{0x01, 0x80, 0xff}) {
      bytes[i] ^= mask;
      run(bytes);
      bytes[i] ^= mask;
      ++runs;
    }
  }
  return runs;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
    return 2;
  }
  size_t files = 0;
  size_t runs = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[1])) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(in), {}};
    run(bytes);
    ++files;
    if (bytes.size() <= kMutatedBytes) runs += run_variants(bytes);
  }
  std::printf("replayed %zu corpus files and %zu variants\n", files, runs);
  return files == 0 ? 1 : 0;
}
