// What a server does, as numbers for Prometheus. Counts, sizes and times only.
#pragma once

#include <isthmus/server/observer.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>

namespace isthmus::tools {

/// Written by the server's thread, read by any.
class Metrics final : public server::Observer {
 public:
  Metrics();

  void on_event(const server::Event& event) override;
  void on_batch(const server::BatchReport& report) override;
  void on_step(const server::StepReport& report) override;
  void on_load(const server::Load& load) override;

  /// Everything in Prometheus' text format.
  [[nodiscard]] std::string text();

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& sessions_ended_;
  prometheus::Family<prometheus::Counter>& refusals_;
  prometheus::Family<prometheus::Counter>& failures_;
  prometheus::Counter& sessions_opened_;
  prometheus::Counter& sessions_resumed_;
  prometheus::Counter& busy_;
  prometheus::Counter& rows_;
  prometheus::Counter& tokens_;
  prometheus::Counter& bytes_up_;
  prometheus::Counter& bytes_down_;
  prometheus::Histogram& batch_steps_;
  prometheus::Histogram& batch_rows_;
  prometheus::Histogram& pass_seconds_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& compute_seconds_;
  prometheus::Histogram& codec_seconds_;
  prometheus::Gauge& sessions_;
  prometheus::Gauge& kv_bytes_;
  prometheus::Gauge& waiting_steps_;
  prometheus::Gauge& waiting_rows_;
  prometheus::Gauge& resident_bytes_;
};

}  // namespace isthmus::tools
