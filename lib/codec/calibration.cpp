#include <isthmus/codec/calibration.h>
#include <isthmus/codec/spec.h>

#include <sodium.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <string_view>

namespace isthmus::codec {
namespace {

static_assert(std::endian::native == std::endian::little, "files are written as memory holds them");

constexpr std::string_view kMagic = "ISTHKLT1";
constexpr size_t kHeaderBytes = kMagic.size() + 2 * sizeof(uint32_t);

tl::unexpected<Error> corrupt(const std::string& reason) {
  return fail(ErrorCode::kCorrupt, "codec: calibration " + reason);
}

template <typename T>
void append(std::vector<std::byte>& bytes, std::span<const T> values) {
  const size_t end = bytes.size();
  bytes.resize(end + values.size_bytes());
  std::memcpy(bytes.data() + end, values.data(), values.size_bytes());
}

/// Takes `values.size()` values from the front of `bytes`, which holds them.
template <typename T>
void take(std::span<const std::byte>& bytes, std::span<T> values) {
  std::memcpy(values.data(), bytes.data(), values.size_bytes());
  bytes = bytes.subspan(values.size_bytes());
}

bool are_sizes(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float v) { return v >= 0 && v <= static_cast<float>(kMaxWidth); });
}

/// Entries of orthogonal matrices, with some room for rounding.
bool are_entries(std::span<const uint16_t> matrix) {
  constexpr uint16_t kSign = 0x8000;
  constexpr uint16_t kMost = 0x3f81;  // 1 + 2^-7
  return std::all_of(matrix.begin(), matrix.end(),
                     [](uint16_t bits) { return (bits & ~kSign) <= kMost; });
}

uint64_t hash_of(std::span<const std::byte> bytes) {
  // 16 bytes is the least that libsodium gives.
  std::array<unsigned char, crypto_generichash_BYTES_MIN> digest{};
  crypto_generichash(digest.data(), digest.size(),
                     reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), nullptr,
                     0);
  uint64_t hash = 0;
  for (size_t i = 0; i < 8; ++i) hash = hash << 8 | digest[i];
  return hash;
}

}  // namespace

Result<Calibration> Calibration::parse(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) {
    return fail(ErrorCode::kTruncated, "codec: calibration has " + std::to_string(bytes.size()) +
                                           " bytes, its header alone has " +
                                           std::to_string(kHeaderBytes));
  }
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return corrupt("does not start with ISTHKLT1");
  }
  std::span<const std::byte> rest = bytes.subspan(kMagic.size());
  std::array<uint32_t, 2> sizes{};
  take(rest, std::span<uint32_t>(sizes));
  const auto [width, block] = sizes;
  if (width > kMaxWidth || block > kMaxBlock) {
    return fail(ErrorCode::kTooLarge, "codec: calibration of width " + std::to_string(width) +
                                          " and block " + std::to_string(block) +
                                          ", the most are " + std::to_string(kMaxWidth) + " and " +
                                          std::to_string(kMaxBlock));
  }
  if (width == 0 || block == 0 || width % block != 0) {
    return corrupt("of width " + std::to_string(width) + " has blocks of " + std::to_string(block));
  }
  const size_t values = size_t{width} * block;
  const size_t expected = kHeaderBytes + sizeof(float) * 2 * width + values * sizeof(uint16_t);
  if (bytes.size() != expected) {
    return fail(bytes.size() < expected ? ErrorCode::kTruncated : ErrorCode::kCorrupt,
                "codec: calibration has " + std::to_string(bytes.size()) +
                    " bytes, its sizes make " + std::to_string(expected));
  }
  Calibration result;
  result.block_ = block;
  result.variance_.resize(width);
  result.channel_size_.resize(width);
  result.matrices_.resize(values);
  take(rest, std::span<float>(result.variance_));
  take(rest, std::span<float>(result.channel_size_));
  take(rest, std::span<uint16_t>(result.matrices_));
  if (!are_sizes(result.variance_)) return corrupt("has a variance that is out of range");
  if (!are_sizes(result.channel_size_)) return corrupt("has a channel size that is out of range");
  if (!are_entries(result.matrices_)) return corrupt("has a matrix entry that is out of range");
  result.hash_ = hash_of(bytes);
  return result;
}

Result<Calibration> Calibration::load(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return fail(ErrorCode::kNotFound, "codec: cannot open '" + path + "'");
  const auto size = static_cast<std::streamoff>(file.tellg());
  constexpr std::streamoff kMost = 2 * kMaxWidth * kMaxBlock + 16 * kMaxWidth;
  if (size < 0) return fail(ErrorCode::kIo, "codec: cannot read '" + path + "'");
  if (size > kMost) {
    return fail(ErrorCode::kTooLarge, "codec: '" + path + "' has " + std::to_string(size) +
                                          " bytes, a calibration has at most " +
                                          std::to_string(kMost));
  }
  std::vector<std::byte> bytes(static_cast<size_t>(size));
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), size)) {
    return fail(ErrorCode::kIo, "codec: cannot read '" + path + "'");
  }
  return parse(bytes);
}

std::vector<std::byte> Calibration::serialize() const {
  std::vector<std::byte> bytes;
  append(bytes, std::span<const char>(kMagic.data(), kMagic.size()));
  const std::array sizes = {static_cast<uint32_t>(width()), static_cast<uint32_t>(block_)};
  append(bytes, std::span<const uint32_t>(sizes));
  append(bytes, std::span<const float>(variance_));
  append(bytes, std::span<const float>(channel_size_));
  append(bytes, std::span<const uint16_t>(matrices_));
  return bytes;
}

Status Calibration::save(const std::string& path) const {
  const std::vector<std::byte> bytes = serialize();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  if (file.flush()) return {};
  return fail(ErrorCode::kIo, "codec: cannot write '" + path + "'");
}

}  // namespace isthmus::codec
