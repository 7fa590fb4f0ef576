#include "metrics.h"

#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <vector>

namespace isthmus::tools {
namespace {

using prometheus::Histogram;

template <typename Builder>
auto& family(const Builder& builder, prometheus::Registry& registry, const char* name,
             const char* help) {
  return Builder(builder).Name(std::string("isthmus_") + name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Counter>& counters(prometheus::Registry& registry, const char* name,
                                                  const char* help) {
  return family(prometheus::BuildCounter(), registry, name, help);
}

prometheus::Counter& counter(prometheus::Registry& registry, const char* name, const char* help,
                             const prometheus::Labels& labels = {}) {
  return counters(registry, name, help).Add(labels);
}

prometheus::Gauge& gauge(prometheus::Registry& registry, const char* name, const char* help) {
  return family(prometheus::BuildGauge(), registry, name, help).Add({});
}

/// 1, 2, 4, ... up to `last`.
Histogram::BucketBoundaries doubling(double first, double last) {
  Histogram::BucketBoundaries bounds;
  for (double bound = first; bound <= last; bound *= 2) bounds.push_back(bound);
  return bounds;
}

Histogram& histogram(prometheus::Registry& registry, const char* name, const char* help,
                     const Histogram::BucketBoundaries& bounds,
                     const prometheus::Labels& labels = {}) {
  return family(prometheus::BuildHistogram(), registry, name, help).Add(labels, bounds);
}

Histogram& step_seconds(prometheus::Registry& registry, const char* part) {
  return histogram(registry, "step_seconds", "Time of an answered step, by what it was spent on.",
                   doubling(0.0005, 20), {{"part", part}});
}

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

/// Now, unlike a peak; 0 where the system does not tell.
double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double total = 0;
  double resident = 0;
  file >> total >> resident;
  return file ? resident * static_cast<double>(sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace

Metrics::Metrics()
    : sessions_ended_(counters(registry_, "sessions_ended_total", "Sessions ended, by how.")),
      refusals_(counters(registry_, "refusals_total", "Sessions refused, by reason.")),
      failures_(counters(registry_, "failures_total", "Other requests that failed, by reason.")),
      sessions_opened_(counter(registry_, "sessions_opened_total", "Sessions opened.")),
      sessions_resumed_(counter(registry_, "sessions_resumed_total",
                                "Sessions opened to go on with one that was lost.")),
      busy_(counter(registry_, "busy_total", "Requests told to come back later.")),
      rows_(counter(registry_, "rows_total", "Boundary rows computed: tokens read.")),
      tokens_(counter(registry_, "tokens_total", "Tokens chosen here.")),
      bytes_up_(counter(registry_, "payload_bytes_total", "Payload of answered steps.",
                        {{"direction", "up"}})),
      bytes_down_(counter(registry_, "payload_bytes_total", "Payload of answered steps.",
                          {{"direction", "down"}})),
      batch_steps_(
          histogram(registry_, "batch_steps", "Sessions that share a pass.", doubling(1, 512))),
      batch_rows_(histogram(registry_, "batch_rows", "Rows of a pass.", doubling(1, 4096))),
      pass_seconds_(histogram(registry_, "pass_seconds", "Time of a pass over the layers.",
                              doubling(0.0005, 20))),
      queue_seconds_(step_seconds(registry_, "queue")),
      compute_seconds_(step_seconds(registry_, "compute")),
      codec_seconds_(step_seconds(registry_, "codec")),
      sessions_(gauge(registry_, "sessions", "Sessions that are open.")),
      kv_bytes_(gauge(registry_, "kv_bytes", "Keys and values that open sessions may grow to.")),
      waiting_steps_(gauge(registry_, "waiting_steps", "Sessions whose turn has not come.")),
      waiting_rows_(gauge(registry_, "waiting_rows", "Rows of steps that are not answered yet.")),
      resident_bytes_(gauge(registry_, "resident_bytes", "Memory of the process.")) {}

void Metrics::on_event(const server::Event& event) {
  using Kind = server::Event::Kind;
  const std::string reason(to_string(event.code));
  switch (event.kind) {
    case Kind::kOpened:
      if (event.resumes) sessions_resumed_.Increment();
      return sessions_opened_.Increment();
    case Kind::kRefused:
      return refusals_.Add({{"reason", reason}}).Increment();
    case Kind::kClosed:
      return sessions_ended_.Add({{"how", "closed"}}).Increment();
    case Kind::kExpired:
      return sessions_ended_.Add({{"how", "expired"}}).Increment();
    case Kind::kBusy:
      return busy_.Increment();
    case Kind::kFailed:
      return failures_.Add({{"reason", reason}}).Increment();
  }
}

void Metrics::on_batch(const server::BatchReport& report) {
  batch_steps_.Observe(static_cast<double>(report.steps));
  batch_rows_.Observe(static_cast<double>(report.rows));
  pass_seconds_.Observe(seconds(report.time));
}

void Metrics::on_step(const server::StepReport& report) {
  rows_.Increment(report.rows);
  if (report.token) tokens_.Increment();
  bytes_up_.Increment(static_cast<double>(report.bytes_up));
  bytes_down_.Increment(static_cast<double>(report.bytes_down));
  queue_seconds_.Observe(seconds(report.queue));
  compute_seconds_.Observe(seconds(report.compute));
  codec_seconds_.Observe(seconds(report.codec));
}

void Metrics::on_load(const server::Load& load) {
  sessions_.Set(load.sessions);
  kv_bytes_.Set(static_cast<double>(load.kv_bytes));
  waiting_steps_.Set(static_cast<double>(load.waiting_steps));
  waiting_rows_.Set(static_cast<double>(load.waiting_rows));
}

std::string Metrics::text() {
  resident_bytes_.Set(resident_bytes());
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

}  // namespace isthmus::tools
