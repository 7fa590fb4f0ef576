// Entropy coding with range asymmetric numeral systems (J. Duda, "Asymmetric numeral systems",
// 2013, arXiv 1311.2540) over static tables: one state of 31 bits, 16 bits at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace isthmus::codec {

/// Probabilities of the symbols 0 ... n-1 in 1/4096, none of them 0.
class FrequencyTable {
 public:
  static constexpr unsigned kBits = 12;
  static constexpr size_t kMaxSymbols = 256;

  /// What the encoder needs to know about a symbol. x / frequency is (x * reciprocal) >> shift for
  /// every state x.
  struct Symbol {
    uint64_t reciprocal = 0;
    uint32_t shift = 0;
    uint16_t frequency = 0;
    uint16_t start = 0;
  };

  /// \param weights not negative, not all 0, 1 to kMaxSymbols of them.
  explicit FrequencyTable(std::span<const double> weights);

  [[nodiscard]] size_t size() const { return symbols_.size(); }
  [[nodiscard]] const Symbol& operator[](size_t symbol) const { return symbols_[symbol]; }
  /// The symbol in whose range `slot` in [0, 4096) is.
  [[nodiscard]] unsigned at(uint32_t slot) const { return lookup_[slot]; }
  /// Bits that the symbol takes.
  [[nodiscard]] float cost(size_t symbol) const { return costs_[symbol]; }

 private:
  std::vector<Symbol> symbols_;
  std::vector<float> costs_;
  std::array<uint8_t, 1U << kBits> lookup_{};
};

/// Smallest state; also what an encoder starts with and a decoder ends with, plus the number that
/// travels in its place.
inline constexpr uint32_t kRansLeast = 1U << 15;

/// Collects symbols in the order in which they will be read and writes them from the last to the
/// first. Tables are borrowed until `finish`.
class RansEncoder {
 public:
  /// \param expected items to make room for; more may come
  explicit RansEncoder(size_t expected) { items_.reserve(expected); }
  void symbol(const FrequencyTable& table, size_t symbol) { items_.push_back({&table[symbol], 0}); }
  /// \param count at most 15, each of which costs exactly one bit.
  void bits(uint32_t value, unsigned count) { items_.push_back({nullptr, count << 16 | value}); }
  /// Writes everything, as a state of 2 to 4 bytes (how many is returned) and 16-bit words.
  /// \param carried below 2^15: travels at no cost, as the state that the decoder ends with.
  [[nodiscard]] unsigned finish(uint32_t carried, std::vector<std::byte>& bytes);

 private:
  struct Item {
    const FrequencyTable::Symbol* symbol;
    uint32_t raw;
  };
  std::vector<Item> items_;
};

/// Reads what RansEncoder wrote. Past the end it reads zeros and remembers that.
class RansDecoder {
 public:
  RansDecoder(std::span<const std::byte> bytes, unsigned state_bytes);

  unsigned symbol(const FrequencyTable& table) {
    const uint32_t slot = state_ & ((1U << FrequencyTable::kBits) - 1);
    const unsigned found = table.at(slot);
    const FrequencyTable::Symbol& symbol = table[found];
    state_ = symbol.frequency * (state_ >> FrequencyTable::kBits) + slot - symbol.start;
    refill();
    return found;
  }
  uint32_t bits(unsigned count) {
    const uint32_t value = state_ & ((1U << count) - 1);
    state_ >>= count;
    refill();
    return value;
  }
  /// The state above its least value; after the last symbol, what was carried if it is in
  /// [0, 2^15).
  [[nodiscard]] uint32_t carried() const { return state_ - kRansLeast; }
  [[nodiscard]] bool overrun() const { return overrun_; }
  [[nodiscard]] size_t position() const { return position_; }

 private:
  void refill() {
    if (state_ < kRansLeast) state_ = state_ << 16 | next_word();
  }
  uint32_t next_word();

  std::span<const std::byte> bytes_;
  size_t position_ = 0;
  uint32_t state_ = 0;
  bool overrun_ = false;
};

}  // namespace isthmus::codec
