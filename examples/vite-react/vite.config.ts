import { getRequestListener } from "@hono/node-server";
import react from "@vitejs/plugin-react";
import { defineConfig, loadEnv, type Plugin } from "vite";

/** The development server answers what `server/app.ts` answers. */
const server: Plugin = {
  name: "server",
  configureServer({ config, middlewares, ssrLoadModule }) {
    Object.assign(process.env, loadEnv(config.mode, config.root, "CHAT_"));
    const listener = getRequestListener(async (request) => (await ssrLoadModule("/server/app.ts")).app.fetch(request));
    middlewares.use((request, response, next) => {
      if (/^\/(api|session)(\/|\?|$)/.test(request.url ?? "")) void listener(request, response);
      else next();
    });
  },
};

export default defineConfig(({ isSsrBuild }) => ({
  plugins: [react(), server],
  // The proxy answers preflights itself.
  server: { cors: false },
  build: isSsrBuild ? {} : { outDir: "dist/client" },
  // TypeScript, so it is built with the app.
  ssr: { noExternal: ["chatkit-postgres-front-end"] },
}));
