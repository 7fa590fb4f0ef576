// What one conversation tells its servers, charged before it is told.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/edge/device.h>
#include <isthmus/privacy/ledger.h>
#include <isthmus/privacy/mechanism.h>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace isthmus::edge {

/// One account in the ledger for each server that may get to see the rows. Replaying encoded rows
/// to any of them is paid for with the draw.
class Account {
 public:
  /// \param mechanism borrowed
  [[nodiscard]] static Result<Account> open(std::shared_ptr<privacy::Ledger> ledger,
                                            const privacy::Mechanism& mechanism,
                                            const std::string& model,
                                            std::span<const std::string> servers);

  /// Counts rows that are about to be drawn; when this fails nothing is counted, and none of them
  /// may be sent.
  [[nodiscard]] Status charge(uint64_t rows);
  /// Of those, rows that were not drawn and will not be.
  void refund(uint64_t rows);
  [[nodiscard]] Result<PrivacyReport> report() const;
  [[nodiscard]] uint64_t charged_rows() const { return charged_rows_; }

 private:
  Account(std::shared_ptr<privacy::Ledger> ledger, const privacy::Mechanism& mechanism)
      : ledger_(std::move(ledger)), mechanism_(&mechanism) {}

  std::shared_ptr<privacy::Ledger> ledger_;  // outlives the conversations
  const privacy::Mechanism* mechanism_;
  std::vector<privacy::Conversation> conversations_;
  uint64_t charged_rows_ = 0;
};

}  // namespace isthmus::edge
