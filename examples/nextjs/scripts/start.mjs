// The standalone server, on this machine alone unless HOSTNAME says otherwise; in any shell, also of Windows.

import { existsSync } from "node:fs";

if (existsSync(".env.local")) process.loadEnvFile(".env.local");
// Shells set HOSTNAME to the name of the machine: only an address counts.
if (!/^[\d.:]+$/.test(process.env.HOSTNAME ?? "")) process.env.HOSTNAME = "127.0.0.1";
process.chdir(".next/standalone");
await import("../.next/standalone/server.js");
