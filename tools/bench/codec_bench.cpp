// What the codec costs: one line of JSON for each spec and width, and one for each stage.
//
// usage: codec_bench [rows in a message, default 1]
//
// Rows are Gaussian with a few outlier channels, as boundaries have, and for klt also correlated.
// Every message is decoded and compared once before anything is timed. Times are the median over
// rounds of the processor time of one thread, per row, so that other work on the machine shows as
// little as it can.
#include <isthmus/codec/codec.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "outliers.h"
#include "quantizer.h"
#include "transform.h"

namespace {

using namespace isthmus;
using namespace isthmus::codec;

constexpr size_t kRows = 64;  // different ones
constexpr int kRounds = 15;
constexpr double kRoundUs = 20e3;

double thread_us() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
}

/// Median microseconds of `work`, which handles `kRows` rows, per row.
template <typename Work>
double us_per_row(const Work& work) {
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    size_t calls = 0;
    const double start = thread_us();
    double elapsed = 0;
    for (; elapsed < kRoundUs; elapsed = thread_us() - start, ++calls) work();
    rounds.push_back(elapsed / static_cast<double>(calls * kRows));
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[rounds.size() / 2];
}

template <typename T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "codec_bench: error: %s\n", result.error().message.c_str());
  std::exit(1);
}

void must(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "codec_bench: error: %s\n", status.error().message.c_str());
  std::exit(1);
}

Matrix boundary(size_t rows, size_t width) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Matrix m(rows, width);
  for (float& value : m.view().values()) value = normal(random);
  for (size_t r = 0; r < rows; ++r)
    for (const size_t channel : {5UL, 100UL, 301UL, 500UL}) m.row(r)[channel % width] *= 30;
  return m;
}

/// Rows whose neighbours are alike, as the calibrated transform likes them.
Matrix correlated(size_t rows, size_t width) {
  Matrix m = boundary(rows, width);
  for (size_t r = 0; r < rows; ++r)
    for (size_t i = 1; i < width; ++i) m.row(r)[i] += 0.7F * m.row(r)[i - 1];
  return m;
}

std::shared_ptr<const Calibration> calibration(size_t width) {
  return std::make_shared<const Calibration>(must(calibrate(correlated(1500, width).view())));
}

double relative_error(const Matrix& a, const Matrix& b) {
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < a.rows() * a.cols(); ++i) {
    const double off = double{a.data()[i]} - double{b.data()[i]};
    error += off * off;
    size += double{a.data()[i]} * double{a.data()[i]};
  }
  return error / size;
}

void run_spec(std::string text, size_t width, size_t chunk,
              const std::shared_ptr<const Calibration>& klt) {
  if (const size_t at = text.find("HASH"); at != std::string::npos) {
    char hash[17];
    std::snprintf(hash, sizeof hash, "%016lx", static_cast<unsigned long>(klt->hash()));
    text.replace(at, 4, hash);
  }
  SystemRandom random;
  const BoundaryCodec codec = must(BoundaryCodec::make(must(CodecSpec::parse(text)), width,
                                                       {.calibration = klt, .random = &random}));
  const bool is_klt = codec.spec().calibration().has_value();
  const Matrix rows = is_klt ? correlated(kRows, width) : boundary(kRows, width);
  Matrix back(kRows, width);
  std::vector<std::vector<std::byte>> messages(kRows / chunk);
  const auto encode = [&] {
    for (size_t m = 0; m < messages.size(); ++m)
      messages[m] = must(codec.encode(rows.view().middle_rows(m * chunk, chunk)));
  };
  const auto decode = [&] {
    for (size_t m = 0; m < messages.size(); ++m)
      must(codec.decode_into(messages[m], back.view().middle_rows(m * chunk, chunk)));
  };
  encode();
  decode();
  size_t bytes = 0;
  for (const auto& message : messages) bytes += message.size();
  const double error = relative_error(rows, back);
  if (!(error < 1)) {
    std::fprintf(stderr, "codec_bench: error: %s decodes to something else\n", text.c_str());
    std::exit(1);
  }
  const double encode_us = us_per_row(encode);
  const double decode_us = us_per_row(decode);
  std::printf(
      "{\"spec\": \"%s\", \"width\": %zu, \"rows_in_message\": %zu, \"bits_per_coordinate\": %.3f, "
      "\"relative_error\": %.3g, \"encode_us\": %.2f, \"decode_us\": %.2f, \"both_us\": %.2f}\n",
      text.c_str(), width, chunk,
      8.0 * static_cast<double>(bytes) / static_cast<double>(kRows * width), error, encode_us,
      decode_us, encode_us + decode_us);
}

void print_stage(const char* stage, size_t width, double forward_us, double backward_us) {
  std::printf(
      "{\"stage\": \"%s\", \"width\": %zu, \"encode_us\": %.2f, \"decode_us\": %.2f, "
      "\"encode_mvalues_per_s\": %.0f, \"decode_mvalues_per_s\": %.0f}\n",
      stage, width, forward_us, backward_us, static_cast<double>(width) / forward_us,
      static_cast<double>(width) / backward_us);
}

/// Each call works on a fresh copy; the copy's own time is taken off.
template <typename Forward, typename Backward>
void run_transform(const char* stage, const Matrix& rows, const Forward& forward,
                   const Backward& backward) {
  Matrix work = rows;
  const auto copy = [&] { std::copy_n(rows.data(), rows.rows() * rows.cols(), work.data()); };
  const double copy_us = us_per_row(copy);
  const double forward_us = us_per_row([&] {
    copy();
    forward(work);
  });
  const double backward_us = us_per_row([&] {
    copy();
    backward(work);
  });
  print_stage(stage, rows.cols(), forward_us - copy_us, backward_us - copy_us);
}

void run_quantizer(const char* stage, const RowQuantizer& quantizer, const Matrix& rows) {
  SystemRandom random;
  std::vector<CodedRow> coded(kRows);
  for (CodedRow& row : coded) row.codes.resize(rows.cols());
  run_transform(
      stage, rows,
      [&](Matrix& work) {
        for (size_t r = 0; r < kRows; ++r) must(quantizer.quantize(work.row(r), &random, coded[r]));
      },
      [&](Matrix& work) {
        for (size_t r = 0; r < kRows; ++r) must(quantizer.reconstruct(coded[r], work.row(r)));
      });
  CodedRow read = coded[0];
  std::vector<std::vector<std::byte>> messages(kRows);
  std::vector<unsigned> state_bytes(kRows);
  const std::string name(stage);
  const double pack_us = us_per_row([&] {
    for (size_t r = 0; r < kRows; ++r) {
      messages[r].clear();
      BitWriter bits(messages[r]);
      quantizer.write(coded[r], bits);
      bits.finish();
    }
  });
  const double unpack_us = us_per_row([&] {
    for (size_t r = 0; r < kRows; ++r) {
      BitReader bits(messages[r]);
      if (!quantizer.read(bits, read)) std::exit(1);
    }
  });
  print_stage((name + ", packing").c_str(), rows.cols(), pack_us, unpack_us);
  const double code_us = us_per_row([&] {
    for (size_t r = 0; r < kRows; ++r) {
      messages[r].clear();
      RansEncoder encoder(rows.cols() + 8);
      quantizer.write(coded[r], encoder);
      state_bytes[r] = encoder.finish(0, messages[r]);
    }
  });
  const double decode_us = us_per_row([&] {
    for (size_t r = 0; r < kRows; ++r) {
      RansDecoder decoder(messages[r], state_bytes[r]);
      if (!quantizer.read(decoder, read)) std::exit(1);
    }
  });
  print_stage((name + ", rans").c_str(), rows.cols(), code_us, decode_us);
}

void run_stages(size_t width, const Calibration& klt) {
  const Matrix rows = boundary(kRows, width);
  const OutlierSplitter splitter({.count = 4}, width);
  std::vector<Outliers> outliers(kRows);
  run_transform(
      "split:4", rows,
      [&](Matrix& work) {
        for (size_t r = 0; r < kRows; ++r) splitter.take(work.row(r), outliers[r]);
      },
      [&](Matrix& work) {
        for (size_t r = 0; r < kRows; ++r) splitter.put_back(outliers[r], work.row(r));
      });
  const auto one_by_one = [](const RowTransform& transform, bool forward) {
    return [&transform, forward](Matrix& work) {
      for (size_t r = 0; r < kRows; ++r) {
        const auto row = work.view().middle_rows(r, 1);
        forward ? transform.forward(row) : transform.inverse(row);
      }
    };
  };
  const auto rotation = must(make_rotation(0, width));
  run_transform("rotate", rows, one_by_one(*rotation, true), one_by_one(*rotation, false));
  const auto all = make_klt(klt, std::vector<size_t>(width / klt.block(), klt.block()));
  run_transform("klt, one row", rows, one_by_one(*all, true), one_by_one(*all, false));
  run_transform(
      "klt, 64 rows", rows, [&](Matrix& work) { all->forward(work.view()); },
      [&](Matrix& work) { all->inverse(work.view()); });
  const RowStatistics rotated{.width = width, .rotated = true};
  run_quantizer("int4", *make_uniform_quantizer(Uniform{.bits = 4}, rotated), rows);
  run_quantizer("tabq:0.01", *make_uniform_quantizer(AdaptiveBits{0.01F}, rotated), rows);
  run_quantizer("bfp:4:32", *make_block_quantizer({.bits = 4, .block = 32}, rotated), rows);
  run_quantizer("step:0.5", *make_step_quantizer({.step = 0.5F}, rotated), rows);
  run_quantizer("trellis:0.4", *make_step_quantizer({.step = 0.4F, .trellis = true}, rotated),
                rows);
  // Drawing a row and estimating it.
  for (const char* spec : {"binomial:1:mu=5", "binomial:2:mu=5", "binomial:4:mu=5",
                           "binomial:8:mu=5", "dgauss:mu=5", "rqm:4:range=3"}) {
    auto mechanism = must(privacy::make_mechanism(must(privacy::MechanismSpec::parse(spec)), width,
                                                  {.coordinate = 2}));
    run_quantizer(spec, *make_mechanism_quantizer(std::move(mechanism)), rows);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const size_t chunk = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1;
  if (chunk == 0 || kRows % chunk != 0) {
    std::fprintf(stderr, "codec_bench: error: the rows in a message must divide %zu\n", kRows);
    return 2;
  }
  for (const size_t width : {576UL, 4096UL}) {
    const auto klt = calibration(width);
    for (const char* spec :
         {"f32", "f16", "int4", "split:4|rotate|int4|rans", "split:4|rotate|int3|rans",
          "split:4|rotate|sint4|rans", "split:4|rotate|step:0.5|rans", "split:x16|trellis:0.3|rans",
          "split:x16|trellis:0.6|rans", "split:x16|klt:HASH|trellis:0.3|rans",
          "split:x16|klt:HASH|trellis:0.6|rans", "split:x16|klt:HASH|step:0.5|rans"}) {
      run_spec(spec, width, chunk, klt);
    }
    if (chunk == 1) run_stages(width, *klt);
  }
  return 0;
}
