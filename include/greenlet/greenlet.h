// SPDX-License-Identifier: MIT
// libgreenlet in C: greenlets for C11 programs, and for C++ programs that have C parts.
//
//   #include <greenlet/greenlet.h>
//   #include <stdio.h>
//
//   static int doubler(void* data, void* payload, void** result) {
//     (void)data, (void)result;
//     int status = GREENLET_OK;
//     while (status == GREENLET_OK) {
//       int n = 2 * *(int*)payload;
//       status = greenlet_switch_to_parent(&n, &payload);
//     }
//     return status;  // GREENLET_EXIT when it is being unwound: free what you have, and return it
//   }
//
//   int main(void) {
//     greenlet_t* g = greenlet_new(doubler, NULL, NULL);
//     for (int n = 1; n <= 3; ++n) {
//       void* answer;
//       if (greenlet_switch(g, &n, &answer) == GREENLET_OK) printf("%d\n", *(int*)answer);
//     }
//     greenlet_unref(g);  // the last reference goes: the greenlet is told to end
//   }
//
// prints
//
//   2
//   4
//   6
//
// A greenlet is a function with a stack of its own that can be left in the middle and gone back to.
// Every greenlet has a parent; when it finishes, its result goes there. Each thread has a main
// greenlet and a tree of its own below it, and greenlets never change thread. What C and C++ make is
// the same: a greenlet_t* is what a C++ handle holds, and one tree may have both (<greenlet/c.hpp>).
//
// STATUS. What can fail returns a status, 0 (GREENLET_OK) or the reason; what returns a pointer
// returns NULL and leaves the status in greenlet_last_error(). All but three say that the call itself
// could not be done, and that nothing has changed. These three are news that arrived while the greenlet
// was away:
//
//   GREENLET_EXIT        it is told to end: release what you hold, and return GREENLET_EXIT
//   GREENLET_THROWN      something else was thrown into it: greenlet_last_exception() has it
//   GREENLET_WRONG_TYPE  C++ sent what is not a void*; the message names its type
//
// C has no destructors. So everything that a C++ destructor would do is done on the way back: when a
// greenlet's function gets a status that it cannot handle, it cleans up and returns that status. What
// the status stands for, the exception object itself, then goes to the parent, as in C++. After
// GREENLET_EXIT a function may still switch, but nobody may be left to switch back: a greenlet that
// has lost its last reference, ignores its exit and waits again is reported to the unraisable handler
// and left as it is until its thread exits.
//
// PAYLOADS are pointers, which the library passes on and never frees or follows. C sends a void*,
// NULL too, and C++ receives a value that holds a void*. From C++, a void*, a nullptr and nothing
// (received as NULL) can be read; GREENLET_NOTHING sends nothing to a C++ function without
// parameters. When a greenlet ends by an exit, its parent receives GREENLET_OK, the exit's own
// payload or NULL, and greenlet_received_exit() has the exit. A refused call sends nothing, so the
// payload is still the caller's; what a greenlet returns while it is unwound, because its last reference
// has gone or its thread exits, goes nowhere.
//
// No C++ exception leaves a function of this interface. Forced unwinding does (pthread_exit and
// pthread_cancel, on any greenlet): it passes through the C functions of the greenlet's stack and of the
// main one, and this needs unwind tables for them. Compile with -fexceptions, as pkg-config tells the
// compiler. Without it, x86-64 and aarch64 have the tables nevertheless, but __attribute__((cleanup)) is
// not done; elsewhere the greenlet's frames are lost; and pthread_cleanup_push() keeps a list per thread
// that knows nothing of greenlets: a thread that ends by force while two of its greenlets are between
// push and pop crashes.
//
// The lines below a function: "Switches: no" means that no other greenlet runs meanwhile. "May unwind"
// means that greenlets of this thread whose last reference has gone on another are unwound first.
// "Owns" says who has to drop what. Thread: any, if nothing else is said. A NULL greenlet is
// GREENLET_EMPTY_HANDLE, or, where there is no status, counts as dead.
#ifndef GREENLET_GREENLET_H
#define GREENLET_GREENLET_H

#include <greenlet/detail/api.hpp>  // one macro, also in C
#include <greenlet/version.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A greenlet: counted, see greenlet_ref().
typedef struct greenlet_body greenlet_t;
/// Refers to a greenlet without keeping it.
typedef struct greenlet_weak greenlet_weak_t;
/// Something that is thrown: an exit, an error made by C, or a C++ exception. Counted; never changes.
typedef struct greenlet_exception greenlet_exception_t;

// --- Status ------------------------------------------------------------------------------------------

/// Numbers from 0 to 999 are the library's; all others, negative ones too, are yours to return.
enum {
  GREENLET_OK = 0,

  GREENLET_DIFFERENT_THREAD = 1,  ///< the greenlet belongs to another thread
  GREENLET_THREAD_EXITED,         ///< ... which has exited
  GREENLET_COLLECTED,             ///< it is the main greenlet of a thread that has exited
  GREENLET_NO_RUN,                ///< it was never given anything to run
  GREENLET_ALREADY_STARTED,       ///< what it runs can no longer be changed
  GREENLET_CYCLIC_PARENT,         ///< the new parent descends from the greenlet itself
  GREENLET_MAIN_PARENT,           ///< a main greenlet has no parent, and gets none
  GREENLET_PARENT_THREAD,         ///< the new parent belongs to another thread
  GREENLET_WRONG_TYPE,            ///< C++ sent what is not a void*: the switch was done
  GREENLET_WRONG_ARGUMENTS,       ///< what was sent, or a structure's size, does not fit
  GREENLET_EMPTY_HANDLE,          ///< the pointer is NULL
  GREENLET_NOT_RUNNING,           ///< the operation needs a running greenlet of this thread
  GREENLET_STACK_LIMIT,           ///< the system allows no more guarded stacks
  GREENLET_ALREADY_WAITING,       ///< another greenlet already waits for the same thing, which takes one
  GREENLET_IN_HOOK,               ///< a hook on a greenlet's switches must not switch
  GREENLET_NO_VALUE,              ///< of C++: the context variable has neither a value nor a default
  GREENLET_WRONG_TOKEN,           ///< of C++: the token does not fit its variable or context, or is used up
  GREENLET_ALREADY_ENTERED,       ///< of C++: the context is in use by another context::run()
  GREENLET_OUT_OF_TURN,           ///< of C++: a generator is read while it runs, or gives while nobody reads
  GREENLET_ALREADY_LOCKED,        ///< of C++: the greenlet has the mutex already
  GREENLET_NOT_LOCKED,            ///< of C++: the greenlet does not have the mutex that it unlocks
  GREENLET_ALREADY_SET,           ///< of C++: the result is there already

  GREENLET_SYSTEM = 100,  ///< a system call failed: greenlet_last_errno()
  GREENLET_NO_MEMORY,     ///< there is no memory for it
  GREENLET_INVALID,       ///< an argument that cannot be, such as a stack size

  GREENLET_THROWN = 200,  ///< something was thrown into the running greenlet
  GREENLET_EXIT,          ///< the running greenlet is told to end

  GREENLET_USER = 1000  ///< the first of your own
};

/// A status in a few words. Never NULL. Switches: no.
GREENLET_API const char* greenlet_strerror(int status);

// The last error belongs to the running greenlet, not to the thread: what others do while it is away
// does not change it. As with errno, success leaves it alone. (Only where there is no memory to note one
// are its code and errno the thread's, until the next.)

/// The status of the last call that failed in the running greenlet; GREENLET_OK when none did.
/// Switches: no.
GREENLET_API int greenlet_last_error(void);
/// Its errno when it was GREENLET_SYSTEM, else 0. Switches: no.
GREENLET_API int greenlet_last_errno(void);
/// What went wrong: a sentence; for the library's own errors a newline and details follow, which
/// greenlets and which threads. "" when nothing did. Switches: no.
/// Owns: the library, until the greenlet's next error or its end.
GREENLET_API const char* greenlet_last_message(void);
/// The exception of it: what was thrown into the greenlet, or would have been thrown in C++.
/// Switches: no. Owns: the caller. NULL when there is none, or no memory for it; this changes no error.
GREENLET_API greenlet_exception_t* greenlet_last_exception(void);
/// Forgets the last error and the exceptions that came with it and before. They stay otherwise until
/// others take their place or the greenlet ends; and whatever they refer to stays as long. An exit that was
/// received (greenlet_received_exit()) is no error, and stays.
/// Switches: only if a destructor of an exception does.
GREENLET_API void greenlet_clear_error(void);

// --- Making greenlets --------------------------------------------------------------------------------

/// What a greenlet runs. `data` was given with the function, `payload` is what the first switch sent.
/// Returns GREENLET_OK, and in `*result` (NULL before) the payload for the parent; or another status:
///
///   GREENLET_EXIT    ends by the exit that it was last thrown, or by a new one: no error for the parent
///   GREENLET_THROWN  ends by the exception that was last thrown into it (or see greenlet_fail_with())
///   one of an error of the library in this greenlet, if it is the last:  ends by that error
///   any other        ends by an error with this code: greenlet_exception_code()
///
/// (Where there was no memory to keep what was thrown, it ends by std::bad_alloc instead.)
typedef int greenlet_function(void* data, void* payload, void** result);

/// What a resolver gives: as the parameters of greenlet_set_run().
typedef struct greenlet_run_t {
  greenlet_function* run;       ///< NULL: the greenlet runs what it has
  void* data;
  void (*release)(void* data);  ///< called with `data`, once, when it is no longer needed
} greenlet_run_t;
/// Called at the greenlet's first start, to give in `*what` (all NULL before) what it is to run: on the
/// stack of the greenlet that starts it, by switching or throwing there or by finishing as its child. It may
/// do what it likes, for the greenlet counts as unstarted meanwhile. If it starts the greenlet itself,
/// what was sent first goes there as an ordinary switch; if that has ended it, to its parent.
/// Returns GREENLET_OK or, as a greenlet_function, another status: then the exception that this stands for is
/// given to the one who switches, as the call's error (to the parent, when a child's end has picked this
/// greenlet), `*what` is released, and the greenlet stays unstarted and can be tried again.
typedef int greenlet_resolver(greenlet_t* g, void* data, greenlet_run_t* what);
/// Called with the data that was given with it when a greenlet is left or entered. It must not switch:
/// what would fails with GREENLET_IN_HOOK.
typedef void greenlet_switch_hook(void* data);

/// How a greenlet is to be made. Begin with GREENLET_ATTRIBUTES:
///
///   greenlet_attributes_t with = GREENLET_ATTRIBUTES;
///   with.name = "client 7";
typedef struct greenlet_attributes {
  size_t size;                  ///< of this structure; later versions may be longer
  greenlet_t* parent;           ///< NULL: the running greenlet
  const char* name;             ///< copied; NULL: none
  size_t stack_size;            ///< in bytes, rounded up to pages, at least 16 KiB; 0: 256 KiB
  void (*release)(void* data);  ///< called with `data`, once, when the greenlet no longer needs it
  int preserve_fp_env;          ///< not 0: the floating-point environment is the greenlet's own
  greenlet_resolver* on_start;  ///< asked at the first start for what to run; NULL: none
  void* on_start_data;          ///< for `on_start`; yours, and must live until the greenlet has started or is gone
  greenlet_switch_hook* leave;  ///< as greenlet_set_on_switch()
  greenlet_switch_hook* enter;
  void* hook_data;
} greenlet_attributes_t;

#define GREENLET_ATTRIBUTES {sizeof(greenlet_attributes_t), NULL, NULL, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL}

/// Makes a greenlet that will call `run`; nothing runs and no stack is allocated yet. A NULL `parent`
/// means the running greenlet; one of another thread makes it a greenlet of that thread. A NULL `run`
/// is to be given later (greenlet_set_run()).
/// Switches: may unwind. Owns: the caller gets a reference. NULL: GREENLET_NO_MEMORY, GREENLET_SYSTEM,
/// GREENLET_EXIT, GREENLET_THROWN.
GREENLET_API greenlet_t* greenlet_new(greenlet_function* run, void* data, greenlet_t* parent);
/// The same with attributes, which may be NULL. `with->release` is called when the function has
/// returned, on the greenlet's own stack and before it counts as dead; when it was never called, by
/// whoever drops the greenlet or gives it another function; and when the call fails, before it returns
/// (but for a wrong `size`, with which nothing else is looked at).
/// NULL: also GREENLET_INVALID (the stack size), GREENLET_WRONG_ARGUMENTS (`size`).
GREENLET_API greenlet_t* greenlet_new_with(greenlet_function* run, void* data, const greenlet_attributes_t* with);

/// Gives an unstarted greenlet what it is to run, in place of what it had. `release` (may be NULL) is
/// as in the attributes, also when the call fails.
/// Switches: only if the old `release` does. Errors: GREENLET_ALREADY_STARTED.
GREENLET_API int greenlet_set_run(greenlet_t* g, greenlet_function* run, void* data, void (*release)(void* data));
/// Takes what it was to run away. As greenlet_set_run().
GREENLET_API int greenlet_reset_run(greenlet_t* g);
/// Whether there is something to run: true until the start. Switches: no.
GREENLET_API int greenlet_has_run(const greenlet_t* g);

/// Counts one more reference, and returns `g`. Switches: no.
GREENLET_API greenlet_t* greenlet_ref(greenlet_t* g);
/// Drops a reference. A suspended greenlet of this thread that loses its last one is thrown an exit,
/// in here; its pending switch returns GREENLET_EXIT, and control comes back when it has finished.
/// One of another thread is handed to that thread, which does so at its next entry into the library.
/// Children keep their parents: a greenlet whose function holds references to its own children keeps
/// itself, and ends when it is thrown at, when it drops them, or with its thread.
/// Switches: into the greenlet. It has no status: what is thrown into the running greenlet meanwhile
/// comes out of its next switch. NULL is allowed.
GREENLET_API void greenlet_unref(greenlet_t* g);

// --- Switching ---------------------------------------------------------------------------------------

/// Switches to the greenlet and sends it `payload`. When somebody, not necessarily that greenlet, later
/// switches to the one that is running now, returns GREENLET_OK and puts what was sent into `*result`,
/// which may be a NULL pointer when nobody cares. `*result` is NULL with every other status.
///
/// An unstarted greenlet is started with the payload. A dead one passes it on to its nearest ancestor
/// that is not dead. The running one gets it back at once.
///
/// Switches: yes. Thread: the greenlet's own. Owns: the caller must have the greenlet for as long as
/// the call has not switched; afterwards the library does what is needed.
/// Errors before anything has changed: GREENLET_EMPTY_HANDLE, _DIFFERENT_THREAD, _THREAD_EXITED, _COLLECTED,
/// _NO_RUN, _STACK_LIMIT, _IN_HOOK, _SYSTEM, _NO_MEMORY. Afterwards: GREENLET_EXIT, _THROWN, _WRONG_TYPE.
GREENLET_API int greenlet_switch(greenlet_t* g, void* payload, void** result);
/// Switches to the parent of the running greenlet: the commonest switch of all. Errors: also
/// GREENLET_MAIN_PARENT in a main greenlet.
GREENLET_API int greenlet_switch_to_parent(void* payload, void** result);
/// As a payload: sends nothing, which C receives as NULL.
GREENLET_API void* greenlet_nothing(void);
#define GREENLET_NOTHING (greenlet_nothing())

/// Switches to the greenlet and throws `e` there, or an exit if it is NULL: its pending switch returns
/// GREENLET_EXIT or GREENLET_THROWN; C++ catches greenlet_exit, greenlets::c_error, or the exception
/// that C had received. An unstarted greenlet dies of it without running. What the greenlet
/// does not handle goes to its parent. A dead one passes it on to its nearest ancestor that is not
/// dead; an exit as a payload.
/// Switches: yes. Thread: the greenlet's own. Owns: `e` stays the caller's. Returns: as greenlet_switch().
GREENLET_API int greenlet_throw(greenlet_t* g, greenlet_exception_t* e, void** result);

/// The exit that ended another greenlet, when that was what the last switch of the running greenlet (or
/// the start of its function) received; NULL otherwise. The exit's payload lives until the next switch of
/// this greenlet, or for as long as somebody has the exit.
/// Switches: no. Owns: the caller. NULL also when there is no memory for it.
GREENLET_API greenlet_exception_t* greenlet_received_exit(void);

// --- The tree ----------------------------------------------------------------------------------------

/// The running greenlet. Makes the thread's main greenlet at its first use in a thread.
/// Switches: may unwind. Owns: nobody; greenlet_ref() what you keep. NULL: GREENLET_NO_MEMORY, GREENLET_SYSTEM.
GREENLET_API greenlet_t* greenlet_current(void);
/// The main greenlet of the calling thread. As greenlet_current().
GREENLET_API greenlet_t* greenlet_main(void);

/// The greenlet that gets control when this one finishes; NULL for a main greenlet.
/// Switches: no. Owns: the caller gets a reference, for the parent may be replaced at any time.
GREENLET_API greenlet_t* greenlet_parent(const greenlet_t* g);
/// Gives it another parent. While unstarted: one of any thread. Once started: one of its own thread.
/// Switches: may unwind, and the old parent too. Thread: any while unstarted, then the greenlet's own.
/// Errors: GREENLET_EMPTY_HANDLE, _MAIN_PARENT, _CYCLIC_PARENT, _PARENT_THREAD, _DIFFERENT_THREAD,
/// _THREAD_EXITED.
GREENLET_API int greenlet_set_parent(greenlet_t* g, greenlet_t* parent);

// --- What a greenlet is: from any thread, without switching; the answer may be old when it arrives ----

/// Where a greenlet is in its life. There is no way back.
typedef enum greenlet_state_t {
  GREENLET_UNSTARTED,  ///< has no stack and belongs to no thread yet
  GREENLET_CURRENT,    ///< its thread is running it
  GREENLET_SUSPENDED,  ///< started, and has switched away
  GREENLET_FINISHED,   ///< its function has returned
  GREENLET_UNWOUND     ///< its thread has exited
} greenlet_state_t;

/// Finished, or its thread has exited.
GREENLET_API int greenlet_dead(const greenlet_t* g);
/// No longer unstarted.
GREENLET_API int greenlet_started(const greenlet_t* g);
/// Started and not dead.
GREENLET_API int greenlet_active(const greenlet_t* g);
GREENLET_API int greenlet_is_main(const greenlet_t* g);
GREENLET_API greenlet_state_t greenlet_state(const greenlet_t* g);
/// A number that no other greenlet of the process ever has; 0 for NULL.
GREENLET_API uint64_t greenlet_id(const greenlet_t* g);
/// Copies the name into `buffer` of `size` bytes, cut if need be and always terminated (unless size is
/// 0), and returns how long it is, as snprintf() does.
GREENLET_API size_t greenlet_name(const greenlet_t* g, char* buffer, size_t size);
/// Gives it another name, which is copied; NULL takes it away. Errors: GREENLET_NO_MEMORY.
GREENLET_API int greenlet_set_name(greenlet_t* g, const char* name);

/// Of a greenlet's stack, in bytes. A stack grows towards lower addresses; only the pages that were
/// touched cost memory.
typedef struct greenlet_stack_usage_t {
  size_t used;       ///< what lies on it just now
  size_t committed;  ///< pages of it that are in memory: how deep it has been
  size_t reserved;   ///< addresses that it may grow into, without the guard page
} greenlet_stack_usage_t;

/// How much of its stack it uses. Without a stack (unstarted, dead, NULL): zeros. On another thread than
/// the greenlet's own only `reserved` is known, and 0 for a main greenlet.
GREENLET_API greenlet_stack_usage_t greenlet_stack(const greenlet_t* g);

// --- For bindings: user data, hooks, tracers ---------------------------------------------------------

// Greenlet-local and context variables have no form in C in this version: the user data, and the data of
// the function that a greenlet runs, serve.

/// A pointer that the library keeps, NULL at first. Switches: no.
GREENLET_API void* greenlet_user_data(const greenlet_t* g);
/// Sets it. `release` (may be NULL) is called with `data` when the greenlet's record is freed (the last
/// reference is gone, and the greenlet dead or never started), on the thread that drops it; in here, when
/// another pointer takes its place; and when the call fails.
/// Switches: only if the old `release` does. Thread: any, but not two at once. Errors: GREENLET_EMPTY_HANDLE.
GREENLET_API int greenlet_set_user_data(greenlet_t* g, void* data, void (*release)(void* data));

/// Has `leave` called when the greenlet is left, on its stack, as the last thing before the switch; and
/// `enter` when it is entered, before anything else runs there, tracers too: so also at its start and its
/// end, but not for one that dies without having run. Either may be NULL; both take them back. On the
/// running greenlet this calls neither. `data` is yours, and must live as long as the greenlet.
/// A suspended greenlet whose last reference goes in a hook is unwound later, at the thread's next entry.
/// Switches: no. Thread: any while unstarted, then the greenlet's own.
/// Errors: GREENLET_EMPTY_HANDLE, _DIFFERENT_THREAD, _THREAD_EXITED, _COLLECTED, _NO_MEMORY, _SYSTEM.
GREENLET_API int greenlet_set_on_switch(greenlet_t* g, greenlet_switch_hook* leave, greenlet_switch_hook* enter,
                                        void* data);

/// What has happened; more may come, and a tracer must let pass what it does not know.
typedef enum greenlet_trace_kind_t {
  GREENLET_TRACE_SWITCHED,  ///< control came with a payload: a switch, or one that has returned or ended by an exit
  GREENLET_TRACE_THROWN     ///< control came with an exception: a throw, or one that has ended a greenlet
} greenlet_trace_kind_t;

/// What a tracer is told. Later versions may add to its end.
typedef struct greenlet_trace_event_t {
  greenlet_trace_kind_t kind;
  int starts;                       ///< not 0: the target is about to begin
  greenlet_exception_t* exception;  ///< what is thrown, or NULL: not known (no memory), or a forced unwind
} greenlet_trace_event_t;

/// Called after the switch, in the target, which is the running greenlet; `origin` is the one that was
/// left. Also called at a start (before the function), at an end, and for switches that unwind. It may
/// switch, and is told of that as well. It cannot throw: C++ tracers can, but where a C function may fail, the
/// switch has been done already. Owns: nobody; all that is given is valid during the call.
typedef void greenlet_tracer(const greenlet_trace_event_t* event, greenlet_t* origin, greenlet_t* target, void* data);
/// Sets the calling thread's tracer, the same that C++ sets, in place of the one before; NULL ends tracing.
/// `release` (may be NULL) is called with `data`, once, when nothing needs the tracer any more: another has
/// taken its place, the thread exits, or the call fails.
/// Switches: only if a `release` does. Errors: GREENLET_NO_MEMORY, _SYSTEM.
GREENLET_API int greenlet_settrace(greenlet_tracer* f, void* data, void (*release)(void* data));
/// Sets one for every thread of the process, those that come too. It is called before a thread's own, and on
/// many threads at once; one that is in the middle of a switch may call the old one once more, and each
/// keeps that until it next looks: `release` is called on the thread that forgets it last.
/// As greenlet_settrace().
GREENLET_API int greenlet_settrace_all_threads(greenlet_tracer* f, void* data, void (*release)(void* data));

// --- The end of a thread's greenlets -----------------------------------------------------------------

/// Does for the calling thread now what its exit would do: unwinds every suspended greenlet of it with an
/// exit (GREENLET_REASON_THREAD_EXIT), forgets its tracer, and makes its main greenlet dead. What the
/// thread does with the library afterwards begins anew. Nothing happens in a thread that has not used
/// greenlets, or in one whose greenlets are being unwound just now. In a greenlet that is not the main one:
/// that greenlet counts as unwound from here on, and its function goes on to its end as the thread's code
/// outside any greenlet; what it returns then goes to where the main greenlet waits.
/// Switches: into each greenlet that is unwound, and back. Errors: GREENLET_IN_HOOK.
GREENLET_API int greenlet_unwind_thread(void);
/// Has `f` called with `data` when the calling thread's greenlets are about to be unwound, by the thread's
/// exit or by greenlet_unwind_thread(), while all of them are still there. Once; the last one given is
/// called first; those given meanwhile, or while greenlets are unwound, are called as well. NULL: nothing is
/// called.
/// Switches: no; `f` may. Errors: GREENLET_NO_MEMORY, _SYSTEM.
GREENLET_API int greenlet_at_thread_unwind(void (*f)(void* data), void* data);

// --- Weak references ---------------------------------------------------------------------------------

/// A weak reference. It still resolves while the greenlet is being unwound because its last reference
/// has gone. Cannot fail, but for NULL. Switches: no. Owns: the caller, who ends it with greenlet_weak_free().
GREENLET_API greenlet_weak_t* greenlet_weak_new(greenlet_t* g);
/// A reference to the greenlet, which is the caller's; NULL when it is gone. Switches: no.
GREENLET_API greenlet_t* greenlet_weak_lock(greenlet_weak_t* w);
/// Whether it is gone; true for NULL. Switches: no.
GREENLET_API int greenlet_weak_expired(const greenlet_weak_t* w);
/// NULL is allowed. Switches: no.
GREENLET_API void greenlet_weak_free(greenlet_weak_t* w);

// --- Exceptions --------------------------------------------------------------------------------------

/// Why a greenlet is told to end.
typedef enum greenlet_reason_t {
  GREENLET_REASON_THROWN,       ///< by somebody's greenlet_throw(), throw_in() or throw statement
  GREENLET_REASON_LAST_HANDLE,  ///< the last reference to the suspended greenlet has gone
  GREENLET_REASON_THREAD_EXIT,  ///< its thread is exiting
  GREENLET_REASON_COLLECTED,    ///< a garbage collector found that nothing can reach it
  GREENLET_REASON_CANCELLED     ///< a hub cancelled it
} greenlet_reason_t;

/// Makes an error to be thrown: a number, a text (copied; NULL: none), and a payload, for which `release`
/// (may be NULL) is called when the last reference to the error has gone, in C or in C++, or when this
/// call fails. C++ catches it as greenlets::c_error.
/// Switches: no. Owns: the caller. NULL: GREENLET_NO_MEMORY.
GREENLET_API greenlet_exception_t* greenlet_exception_new(int code, const char* message, void* payload,
                                                          void (*release)(void* payload));
/// Makes an exit with a payload, which the parent receives unless somebody prevents the end. C++ catches
/// it as greenlet_exit, or as greenlets::c_exit. Everything else as greenlet_exception_new().
GREENLET_API greenlet_exception_t* greenlet_exception_new_exit(void* payload, void (*release)(void* payload));
/// Counts one more reference, and returns `e`. Switches: no.
GREENLET_API greenlet_exception_t* greenlet_exception_ref(greenlet_exception_t* e);
/// Drops a reference. NULL is allowed. Switches: only if the exception's destructor does.
GREENLET_API void greenlet_exception_unref(greenlet_exception_t* e);

/// Has the running greenlet's function end by `e` when it returns what this returns, which is
/// GREENLET_EXIT for an exit, else GREENLET_THROWN:
///
///   return greenlet_fail_with(e);
///
/// Switches: no. Owns: `e` stays the caller's. Errors: GREENLET_EMPTY_HANDLE (NULL), GREENLET_NO_MEMORY.
GREENLET_API int greenlet_fail_with(greenlet_exception_t* e);

// Of an exception, all: Switches: no. NULL is allowed. Texts live as long as the exception.

/// Whether it tells a greenlet to end, and is no error.
GREENLET_API int greenlet_exception_is_exit(const greenlet_exception_t* e);
/// The reason of an exit.
GREENLET_API greenlet_reason_t greenlet_exception_reason(const greenlet_exception_t* e);
/// The code of an error made by C or returned by a C function; the library's code for its own errors;
/// GREENLET_EXIT for an exit; GREENLET_THROWN for any other; GREENLET_OK for NULL.
GREENLET_API int greenlet_exception_code(const greenlet_exception_t* e);
/// The payload of an error or exit made by C, else NULL.
GREENLET_API void* greenlet_exception_payload(const greenlet_exception_t* e);
/// The C++ type, such as "std::runtime_error"; "" for NULL.
GREENLET_API const char* greenlet_exception_type(const greenlet_exception_t* e);
/// What it says: the text of an error made by C, what() of a std::exception, else its type; "" for NULL.
GREENLET_API const char* greenlet_exception_message(const greenlet_exception_t* e);

// --- The process -------------------------------------------------------------------------------------

/// Told of an exception that cannot be thrown anywhere: it ended a greenlet that was being unwound (by
/// its last reference, or its thread's exit), or a greenlet refused to end. Called in the greenlet that
/// did the unwinding, on its thread. Owns: nobody; both are valid during the call.
typedef void greenlet_unraisable_handler(greenlet_t* g, greenlet_exception_t* e, void* data);
/// Sets the process's handler, the same that C++ sets; NULL: back to the default, which writes a line to
/// standard error. Switches: no. Errors: GREENLET_NO_MEMORY.
GREENLET_API int greenlet_set_unraisable_handler(greenlet_unraisable_handler* handler, void* data);
/// Hands an exception to the handler: for frameworks that run other people's functions in greenlets of
/// their own. `g` may be NULL. Switches: only if the handler does. Errors: GREENLET_EMPTY_HANDLE (no `e`).
GREENLET_API int greenlet_report_unraisable(greenlet_t* g, greenlet_exception_t* e);

/// What the library keeps in this process. For tests and for the status page of a daemon.
typedef struct greenlet_counts_t {
  size_t greenlets;       ///< every greenlet to which a reference is left, main ones too
  size_t main_greenlets;  ///< of those, main greenlets; that of an exited thread counts while referenced
  size_t stacks;          ///< stacks mapped, in use or pooled
  size_t pooled_stacks;   ///< of those, waiting to be used again
  size_t threads;         ///< threads that use greenlets now
} greenlet_counts_t;

/// Switches: no. While other threads work the numbers are from about the same moment.
GREENLET_API greenlet_counts_t greenlet_counts(void);
/// The stacks of all threads of this process.
typedef struct greenlet_process_stacks_t {
  size_t mapped;               ///< a count: stacks for which memory is mapped, in use, pooled, or none yet
  size_t mapped_bytes;         ///< addresses that they take, guard pages included; memory is what was touched
  size_t guarded;              ///< a count: of those mapped, with a guard page below; all of them
  size_t guarded_by_mprotect;  ///< a count: of those guarded, each of which splits a mapping (vm.max_map_count)
  size_t in_use;               ///< a count: with a greenlet that is started and not dead
  size_t pooled;               ///< a count: waiting to be used again, as pooled_stacks of greenlet_counts()
  size_t high_water;           ///< a count: the most that were in use and pooled together, ever
  size_t high_water_bytes;     ///< the most that mapped_bytes ever was
} greenlet_process_stacks_t;

/// What greenlet_counts() says of stacks, and more: in_use and pooled together are its stacks.
/// Switches: no. While other threads work the numbers are from about the same moment.
GREENLET_API greenlet_process_stacks_t greenlet_stack_statistics(void);
/// Gives the calling thread's pooled stacks back to the system. By itself the library keeps at most 256 a
/// thread, and fewer, of which only the first page or two, after many have ended of which none was needed again.
/// Switches: no.
GREENLET_API void greenlet_trim_stacks(void);
/// From now on an overflow of a greenlet's stack is reported on standard error: the greenlet, its thread, the
/// size of its stack, and its frames as object+offset. Then the handler of SIGSEGV that was there before is
/// called; by default the process dies of SIGSEGV, as it would have. Every other fault goes to that handler alone.
/// Each thread that uses greenlets gets an alternate signal stack of 64 KiB, unless it has one, the calling one now,
/// others at their next entry into the library. What is recognised is said in greenlet_report_stack_overflows(3).
/// Once is enough: a second call only sees to the calling thread's alternate stack.
/// Switches: no. Errors: GREENLET_SYSTEM (mmap, mprotect, sigaltstack, sigaction), _NO_MEMORY; nothing has changed.
GREENLET_API int greenlet_report_stack_overflows(void);
/// The version of the library that runs; GREENLET_VERSION_STRING is that of the headers. Switches: no.
GREENLET_API const char* greenlet_version(void);

#ifdef __cplusplus
}
#endif

#endif
