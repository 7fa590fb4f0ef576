#include "account.h"

#include <algorithm>
#include <utility>

namespace isthmus::edge {

Result<Account> Account::open(std::shared_ptr<privacy::Ledger> ledger,
                              const privacy::Mechanism& mechanism, const std::string& model,
                              std::span<const std::string> servers) {
  Account account(std::move(ledger), mechanism);
  for (const std::string& server : servers) {
    ISTHMUS_ASSIGN(privacy::Conversation conversation,
                   account.ledger_->begin({.model = model, .server = server}));
    account.conversations_.push_back(std::move(conversation));
  }
  return account;
}

Status Account::charge(uint64_t rows) {
  for (size_t i = 0; i < conversations_.size(); ++i) {
    Status charged = conversations_[i].charge(*mechanism_, rows);
    if (charged) continue;
    for (size_t earlier = 0; earlier < i; ++earlier) conversations_[earlier].refund(rows);
    return charged;
  }
  charged_rows_ += rows;
  return {};
}

void Account::refund(uint64_t rows) {
  for (privacy::Conversation& conversation : conversations_) conversation.refund(rows);
  charged_rows_ -= rows;
}

Result<PrivacyReport> Account::report() const {
  privacy::PrivacySpent most;
  for (const privacy::Conversation& conversation : conversations_) {
    ISTHMUS_ASSIGN(const privacy::PrivacySpent spent, conversation.spent());
    most.conversation_epsilon = std::max(most.conversation_epsilon, spent.conversation_epsilon);
    most.period_epsilon = std::max(most.period_epsilon, spent.period_epsilon);
    most.total_epsilon = std::max(most.total_epsilon, spent.total_epsilon);
    most.conversation_rows = std::max(most.conversation_rows, spent.conversation_rows);
  }
  return PrivacyReport{.statement = mechanism_->statement(most.conversation_rows), .spent = most};
}

}  // namespace isthmus::edge
