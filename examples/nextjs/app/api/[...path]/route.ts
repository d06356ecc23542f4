import { chat } from "@/lib/backend";

export const dynamic = "force-dynamic";

export { chat as GET, chat as OPTIONS, chat as POST, chat as PUT };
