/* Control flow: calls and returns, indirect calls, a bytecode machine in a switch, and Lua. */
#include "cpubench.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdlib.h>

__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) static unsigned fibonacci(unsigned n)
{
    __asm__ volatile("");
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void call_run(uint64_t n)
{
    while (n--)
        bench_sink += fibonacci(15);
}

#define TARGET(k)                                                                                                      \
    __attribute__((noinline, noclone)) static uint64_t target_##k(uint64_t x)                                          \
    {                                                                                                                  \
        return x * (2 * (k) + 1) + (k);                                                                                \
    }
TARGET(0)
TARGET(1)
TARGET(2)
TARGET(3)
TARGET(4)
TARGET(5)
TARGET(6)
TARGET(7)

static uint64_t (*volatile targets[8])(uint64_t) = {target_0, target_1, target_2, target_3,
                                                    target_4, target_5, target_6, target_7};

static void indirect_run(uint64_t n)
{
    uint64_t x = 1;
    while (n--)
        for (unsigned i = 0; i < 256; i++)
            x = targets[(i * 5 + (i >> 3)) & 7](x);
    bench_sink += x;
}

/* ---- a bytecode machine ---- */

enum { OP_PUSH, OP_ADD, OP_SUB, OP_MUL, OP_LOAD, OP_STORE, OP_LESS, OP_JUMPIF, OP_XOR, OP_DUP, OP_END };

__attribute__((noinline)) static int64_t machine(const int8_t *code, int64_t count)
{
    int64_t stack[16], var[4] = {0, 0, count, 1};
    int sp = 0;
    for (const int8_t *pc = code;;) {
        switch (*pc++) {
        case OP_PUSH:
            stack[sp++] = *pc++;
            break;
        case OP_ADD:
            sp--;
            stack[sp - 1] += stack[sp];
            break;
        case OP_SUB:
            sp--;
            stack[sp - 1] -= stack[sp];
            break;
        case OP_MUL:
            sp--;
            stack[sp - 1] *= stack[sp];
            break;
        case OP_LOAD:
            stack[sp++] = var[*pc++];
            break;
        case OP_STORE:
            var[*pc++] = stack[--sp];
            break;
        case OP_LESS:
            sp--;
            stack[sp - 1] = stack[sp - 1] < stack[sp];
            break;
        case OP_JUMPIF:
            pc += stack[--sp] ? *pc : 1;
            break;
        case OP_XOR:
            sp--;
            stack[sp - 1] ^= stack[sp];
            break;
        case OP_DUP:
            stack[sp] = stack[sp - 1];
            sp++;
            break;
        case OP_END:
            return var[1];
        default:
            abort();
        }
    }
}

static void vm_run(uint64_t n)
{
    static const int8_t code[] = {
        OP_LOAD,  1,      OP_PUSH, 31, OP_MUL,  OP_LOAD,  0,       OP_XOR,    OP_DUP, OP_STORE, 3, OP_LOAD,
        3,        OP_ADD, OP_PUSH, 3,  OP_SUB,  OP_STORE, 1,       OP_LOAD,   0,      OP_PUSH,  1, OP_ADD,
        OP_STORE, 0,      OP_LOAD, 0,  OP_LOAD, 2,        OP_LESS, OP_JUMPIF, -32,    OP_END,
    };
    while (n--)
        bench_sink += (uint64_t)machine(code, 100);
}

/* ---- Lua ---- */

static lua_State *lua;

static bool lua_setup(void)
{
    static const char program[] =
        "function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
        "function tables(n) local t = {} for i = 1, n do t[i] = (i * 7919) % 1009 end\n"
        "  table.sort(t) local s = 0 for i, v in ipairs(t) do s = s + i * v end return s end\n"
        "function strings(n) local t = {} for i = 1, n do t[#t + 1] = ('%d:%s'):format(i, ('x'):rep(i % 9)) end\n"
        "  local s, c = table.concat(t, ','), 0 for w in s:gmatch('%d+') do c = c + #w end return c end\n";
    if (!lua) {
        lua = luaL_newstate();
        luaL_openlibs(lua);
        if (luaL_dostring(lua, program))
            abort();
    }
    return true;
}

static void lua_call1(const char *function, int argument)
{
    lua_getglobal(lua, function);
    lua_pushinteger(lua, argument);
    if (lua_pcall(lua, 1, 1, 0))
        abort();
    bench_sink += (uint64_t)lua_tointeger(lua, -1);
    lua_pop(lua, 1);
}

static void lua_fib_run(uint64_t n)
{
    while (n--)
        lua_call1("fib", 12);
}

static void lua_table_run(uint64_t n)
{
    while (n--)
        lua_call1("tables", 200);
}

static void lua_string_run(uint64_t n)
{
    while (n--)
        lua_call1("strings", 60);
}

const struct bench bench_calls[] = {
    {"call-return", "calls", call_run, NULL},
    {"indirect-call", "calls", indirect_run, NULL},
    {"switch-vm", "calls", vm_run, NULL},
    {"lua-fib", "calls", lua_fib_run, lua_setup},
    {"lua-tables", "calls", lua_table_run, lua_setup},
    {"lua-strings", "calls", lua_string_run, lua_setup},
    {0},
};
