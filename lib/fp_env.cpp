// SPDX-License-Identifier: MIT
// The floating-point environment: the thread's, or a greenlet's own (attributes::preserve_fp_env()).
#include "thread.hpp"

namespace greenlets::detail {

void carry_fp_env(thread_record& t, body* to) noexcept {
  body* const from = t.running();
  if (!from->own_fp_env && !to->own_fp_env) return;
  machine::save(from->own_fp_env ? from->fp_env : t.fp_env);
  machine::load(to->own_fp_env ? to->fp_env : t.fp_env);
}

void carry_fp_env(body* to) noexcept { carry_fp_env(*static_cast<thread_record*>(hot_thread_v1), to); }

void begin_fp_env(thread_record& t, body* b) noexcept {
  if (!b->own_fp_env) return;
  machine::save(b->fp_env);
  if (t.fp_envs++ == 0) t.raise(attention::fp_env);
}

void end_fp_env(thread_record& t, body* b) noexcept {
  if (b->own_fp_env && --t.fp_envs == 0) t.lower(attention::fp_env);
}

}  // namespace greenlets::detail
