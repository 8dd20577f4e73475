package qupath.lib.scripting

class QP {
    static Object current
    static Object getProject() { current }
}
