// The cost model: what one candidate takes, and the formulas behind it.
//
// Names. L layers; cut k; tail m (L without one); front [0, k), back [k, m), tail [m, L). A step is
// one message: a chunk of the prompt, or one decoded token. P, R tokens of prompt and reply;
// C context; N sessions: as many devices, each with a link of its own, that share one server.
//
// Time of a segment [a, b) for t tokens behind s others, on one machine at one weight and KV
// precision:
//   segment(a, b, t, s) = table(n, t) + pair * n' * t * s + (b = L ? head : 0)
//   n' = b - a, and n = n' weighted by size: L * bytes[a, b) / bytes[0, L)
// The table is measured at several n and t, so it holds the cost of the call itself and what caches
// do to small segments; `pair` is what one more position in front costs a token and layer. The head
// runs for one row of a step that wants a reply. Of a decoded token all of it is multiplied by what
// waiting does to the machine, idle(round trip); on the device alone idle(0).
//
// A step (StepCost) passes these places, one after the other:
//   front   segment(0, k, t, s)             on the device
//   encode  up codec, t rows                on the device
//   up      8 * (up bytes + 78) / up rate   the link sends one message at a time
//   (half a round trip)
//   decode  up codec, t rows                on the server
//   back    segment(k, m, t, s)             on the server
//   encode  down codec, r rows              on the server   }
//   (half a round trip)                                     }  with a tail; else only the answer,
//   down    8 * (down bytes + 40) / down rate               }  without rows
//   decode  down codec, r rows              on the device   }
//   tail    segment(m, L, t, s)             on the device   }
// r is t where the tail has layers, whose caches need every row, and 1 or 0 where it has none. 78
// and 40 bytes are what surrounds a payload and what an answer without one takes on TCP, encryption
// included, as counted in README.md.
//
// Time per token = sum over the places of the step (t = 1, s = P + R / 2).
// Time to first token = when the last of ceil(P / chunk) steps is through, where each of device,
// link up, server and link down handles one step at a time and in order, at most `chunks_in_flight`
// are between leaving the device and being answered, and a device that waits for an answer first
// takes its tail (`prompt_seconds`). With one in flight that is the sum over all steps.
// Throughput, as seconds per token of all sessions together = max(time per token / N, time on the
// server), as if a server computed one token at a time: one that joins steps of several sessions
// does better.
//
// Memory (one-point split compression, M(l, Q) = sum over i <= l of B(i; Q1) + sum over j > l of
// B(j; Q2)):
//   device = base + bytes[front and tail; front bits] + (tail ? head) + C * kv * layers(front,
//   tail) server = base + bytes[back; back bits] + (tail ? 0 : head) + N * C * kv * layers(back)
// kv is the bytes that keys and values take per token and layer.
//
// Traffic = bytes per decoded token, both ways, as they cross TCP.
// Energy = computing watts * device time + waiting watts * the rest of the time per token.
// Quality = loss of weights and caches + loss of the up codec at k + of the down codec at m, each
// not below 0; first order in small losses. Only what was evaluated counts, weights and caches at
// the engine precision of both machines; else it is infinite.
// Attack = the most that any audited attack reads at (k, up codec), upper end of its 95 % interval,
// without unigram_prior and language_prior, which read no message. Of an attack on few tokens
// (causal_matching) that end says how little was tested, not how much was read.
// Epsilons = those of the same audit rows; per prompt only of audits whose prompts have P rows or
// more. That is of the prompt alone: at cuts from 1 on, rows of the reply and of later turns are
// releases too and come on top.
// Attack and epsilons are infinite where nothing was audited or promised, and 0 on the device
// alone, where nothing is sent.
//
// Not in the model: at cut 0 behind a mechanism, tokens of the reply cross by the device's
// `codec_clean`, without noise. Here they cross by the up codec like the prompt, so their time,
// traffic and energy are those of the mechanism, and its loss counts for them too.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/problem.h>
#include <cstdint>

namespace isthmus::planner {

/// Bytes on TCP beside the payload of a step, and of an answer without payload.
inline constexpr double kStepOverheadBytes = 78;
inline constexpr double kAnswerOverheadBytes = 40;

/// Seconds of a segment with `layers` layers of relative size `weighted_layers`; without head.
[[nodiscard]] double segment_seconds(const WeightCost& weights, const KvCost& kv, int32_t layers,
                                     double weighted_layers, double tokens, double position);

/// Seconds that one step spends at each place. A local step has only a tail.
struct StepCost {
  double front = 0;
  double encode_up = 0;
  double up = 0;
  double decode_up = 0;
  double back = 0;
  double encode_down = 0;
  double down = 0;
  double decode_down = 0;
  double tail = 0;
  double round_trip = 0;

  /// Time on the device, codecs included, until the message leaves; and once the answer is there.
  [[nodiscard]] double before_sending() const { return front + encode_up; }
  [[nodiscard]] double after_answer() const { return decode_down + tail; }
  [[nodiscard]] double on_server() const { return decode_up + back + encode_down; }
  [[nodiscard]] double total() const {
    return before_sending() + up + on_server() + down + round_trip + after_answer();
  }
};

/// Seconds until `full_count` equal steps and a last one have passed, at most `in_flight` (at least
/// 1) at a time.
[[nodiscard]] double prompt_seconds(const StepCost& full, int32_t full_count, const StepCost& last,
                                    int32_t in_flight);

/// What a candidate is expected to do.
struct Prediction {
  Metrics metrics;
  StepCost token;       ///< of one decoded token
  double device = 0;    ///< seconds per token: front and tail
  double codec = 0;     ///< all encoding and decoding
  double wire = 0;      ///< round trip and sending
  double server = 0;    ///< back
  double bytes_up = 0;  ///< per decoded token, on TCP
  double bytes_down = 0;
};

/// The formulas above for one candidate, which must be in the space of `problem`, a completed one.
[[nodiscard]] Prediction predict(const Problem& problem, const Candidate& candidate);

}  // namespace isthmus::planner
